"""The defects of `make mutants` can still be planted."""

import pytest

from tests.support.project import ROOT
from tests.tools.mutants import DEFECTS, Defect


@pytest.mark.parametrize("defect", DEFECTS, ids=range(len(DEFECTS)))
def test_text_of_a_defect_stands_in_its_file_once(defect: Defect) -> None:
    assert (ROOT / defect.file).read_text().count(defect.old) == 1
    assert defect.old != defect.new
