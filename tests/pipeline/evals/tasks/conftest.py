import pytest

from pipeline.evals.data_folder import DataFolder
from tests.pipeline.evals import own_data


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(str(own_data.write(tmp_path_factory.mktemp("data"))))
