import pytest

from pipeline.proposal import names
from pipeline.proposal.names import EXACT, HINTED, NAMED


@pytest.mark.parametrize(
    ("role", "name", "how"),
    [
        ("user", "user_id", EXACT),
        ("user", "UserID", EXACT),
        ("user", "Kundnummer", EXACT),
        ("user", "användarid", EXACT),
        ("user", "用户编号", EXACT),
        ("user", "ID de cliente", EXACT),
        ("user", "пользователь", EXACT),
        ("user", "user_age", HINTED),
        ("user", "用户年龄", HINTED),
        ("user", "customer_since_date", HINTED),
        ("user", "price", 0),
        ("item", "movieId", EXACT),
        ("item", "商品", EXACT),
        ("item", "item_title", HINTED),
        ("time", "timestamp", EXACT),
        ("time", "rated_at", NAMED),
        ("time", "release_date", HINTED),
        ("time", "時間", EXACT),
        ("label", "betyg", EXACT),
        ("label", "event_type", NAMED),
        ("label", "是否点击", NAMED),
        ("label", "avg_rating", HINTED),
        ("weight", "play_count", NAMED),
    ],
)
def test_names_say_roles_in_many_languages(role, name, how):
    assert names.says(role, name) == how


def test_codes_titles_and_what_is_known_afterwards():
    assert names.is_code("stad")
    assert names.is_code("zip_code")
    assert not names.is_code("age")
    assert names.is_title("filmtitel")
    assert names.is_known_afterwards("propensity_score")
    assert not names.is_known_afterwards("policyholder_age")
    assert names.is_event_id("InvoiceNo")
    assert names.is_event_id("session_id")
    assert not names.is_event_id("event")
