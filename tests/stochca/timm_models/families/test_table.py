from tests.stochca.timm_models.families.table import PAGE, in_page, table


def test_page_shows_what_the_families_can_do() -> None:
    assert in_page(PAGE.read_text()) == table(), (
        "run: python -m tests.stochca.timm_models.families.table --write"
    )
