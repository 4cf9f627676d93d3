"""The operations that need credentials: each returns who called it."""

from handlers.contract.dispatch import RequestContext


async def enter(request: RequestContext) -> dict[str, str]:
    return {"caller": request.caller.decode()}


enter_open_room = enter_with_key = enter_with_password = enter_with_badge = enter_with_kiosk_code = enter
enter_with_session = enter_with_account = reserve_with_account = enter_as_staff = enter
enter_with_badge_or_password = enter_with_badge_and_session = enter_lobby = enter
