// A client of the Tasks API: openapi-fetch with the types of the contract.
import createClient, { type Client, type ClientOptions } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";

export type Task = components["schemas"]["Task"];
export type TaskInput = components["schemas"]["TaskInput"];
export type Confirmation = components["schemas"]["Confirmation"];
export type Problem = components["schemas"]["Problem"];
export type Violation = components["schemas"]["Violation"];

export type TasksClient = Client<paths>;

export interface TasksClientOptions extends Omit<ClientOptions, "baseUrl"> {
  /** The base URL of the service. */
  baseUrl: string;
  /** The API key, if the service requires one. */
  key?: string | undefined;
}

/** Create a client that calls operations by method and path; each call resolves to either `data` or `error`. */
export function createTasksClient({ key, ...options }: TasksClientOptions): TasksClient {
  const client = createClient<paths>(options);
  if (key) {
    client.use({ onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${key}`) });
  }
  return client;
}
