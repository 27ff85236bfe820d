import json

from sesurgery.pipeline import catalogs
from sesurgery.spec.schema import json_schema
from sesurgery.spec.spec import Spec


def insert_choices(schema):
    return schema["$defs"]["InsertRule"]["properties"]["insert"]["anyOf"]


def test_the_schema_knows_every_block_and_its_options():
    choices = {item["title"]: item for item in insert_choices(json_schema(catalogs())) if "title" in item}
    assert set(choices) == set(catalogs().blocks.names())
    assert choices["se"]["properties"]["gate"]["enum"] == ["sigmoid", "hard_sigmoid", "tanh", "relu"]
    assert choices["se"]["additionalProperties"] is False


def test_a_block_with_a_required_option_has_no_short_form():
    short = insert_choices(json_schema(catalogs()))[0]["enum"]
    assert "se" in short
    assert "python" not in short


def test_the_schema_lists_every_key_of_a_spec():
    assert set(json_schema(catalogs())["properties"]) == set(Spec.model_fields)


def test_the_schema_is_the_committed_one(request):
    committed = request.config.rootpath / "specs" / "schema.json"
    assert json.loads(committed.read_text()) == json_schema(catalogs())
