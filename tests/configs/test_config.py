import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from configs import ConfigError, canonical_json, config_from_tree, digest, load_config

COMMITTED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.name)
def test_the_configs_of_this_project_load(path):
    assert load_config(path).name == path.stem


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch, load):
    monkeypatch.chdir("/")
    config = load("runs.folder=out")
    assert config.path == tmp_path / "demo.yaml"
    assert config.source == str(tmp_path / "logs.csv")
    assert config.schema_path == str(tmp_path / "demo.schema.pbtxt")
    assert config.runs_folder == str(tmp_path / "out")
    assert Path(config.model_folder).resolve() == tmp_path.parent / "served" / "demo"
    assert Path(load().runs_folder).resolve() == tmp_path.parent / "runs" / "demo"


@pytest.mark.parametrize("source", ["/data/logs.csv", "gs://bucket/logs-*.csv", "hdfs://host/logs"])
def test_absolute_and_remote_paths_stay(load, source):
    assert load(f"data.source={source}").source == source


def test_patterns_keep_their_marks(tmp_path, load):
    assert load("data.source='day-{SPAN}/*.csv'").source == f"{tmp_path}/day-{{SPAN}}/*.csv"


def test_a_relative_path_of_the_config_still_gives_absolute_ones(tmp_path, monkeypatch, smallest):
    monkeypatch.chdir(tmp_path)
    assert load_config("demo.yaml").source == str(tmp_path / "logs.csv")


def test_names_of_the_served_model(load):
    assert load().model_name == "demo"
    assert load("serving.model=Demo-2.1").model_name == "Demo-2.1"


@pytest.mark.parametrize(
    ("override", "place", "expectation"),
    [
        ("nope=1", "nope", "unknown key 'nope'"),
        ("data.usr=u", "data.usr", "unknown key 'usr'"),
        ("features.u.vocabulary=1", "features.u.vocabulary", "unknown key 'vocabulary'"),
        ("features.numeric={kind: numeric, of: user, zz: 1}", "features.numeric.zz", "unknown key 'zz'"),
        ("validation.limits={time: {dirft: 1}}", "validation.limits.time.dirft", "unknown key 'dirft'"),
        ("baselines={deepfm: {type: deepfm, hiden: 1}}", "baselines.deepfm.hiden", "unknown key 'hiden'"),
        ("model={type: item_mean, l2: 1}", "model.l2", "unknown key 'l2'"),
        ("data={source: x}", "data.user", "required key 'user' is missing"),
        ("features.a={kind: hashed, of: user}", "features.a.buckets", "required key 'buckets' is missing"),
        ("features.a={of: user}", "features.a", "required key 'kind' is missing"),
        ("model={hidden: [3]}", "model", "required key 'type' is missing"),
        ("features.a={kind: wrong}", "features.a.kind", "expected one of 'vocabulary', 'hashed', .*, got 'wrong'"),
        ("model.type=svm", "model.type", "expected one of .*'deepfm', .* got 'svm'"),
        ("features.a=3", "features.a", "expected keys and values, got 3"),
        ("training=", "training", "expected keys and values, got None"),
        ("features={}", "features", "expected a length of at least 1, got {}"),
        ("name=Demo", "name", r"expected text that matches .*, got 'Demo'"),
        ("name=12", "name", "expected a valid string, got 12"),
        ("training.batch=0", "training.batch", "expected greater than or equal to 1, got 0"),
        ("training.epochs=1.5", "training.epochs", "expected a valid integer, .* got 1.5"),
        ("training.learning_rate=.nan", "training.learning_rate", "expected a finite number, got nan"),
        ("training.learning_rate=.inf", "training.learning_rate", "expected a finite number, got inf"),
        ("model={type: deepfm, hidden: [8, 0]}", "model.hidden.1", "expected greater than or equal to 1, got 0"),
        ("model={type: deepfm, dropout: 1}", "model.dropout", "expected less than 1, got 1"),
        ("data.time_range=[x, 2020-01-01]", "data.time_range.0", "expected a valid datetime or date, .* got 'x'"),
        ("data.time_range=[2020-01-01]", "data.time_range.1", "a value is missing"),
        ("serving.model=..", "serving.model", "expected text that matches"),
        ("baselines={../x: {type: lr}}", "baselines.../x", "as a name, expected text that matches"),
        ("baselines={blessed: {type: lr}}", "baselines", "the name 'blessed' is taken"),
        ("baselines={candidate: {type: lr}}", "baselines", "the name 'candidate' is taken"),
        ("beam.args=--direct", "beam.args", "expected a valid list, got '--direct'"),
    ],
)
def test_errors_name_file_key_path_and_expectation(load, smallest, override, place, expectation):
    with pytest.raises(ConfigError) as raised:
        load(override)
    lines = str(raised.value).splitlines()
    assert any(re.match(f"{re.escape(f'{smallest}: {place}')}: {expectation}", line) for line in lines), lines


def test_every_error_is_told_at_once(load):
    with pytest.raises(ConfigError) as raised:
        load("training.batch=0", "name=X", "nope=1")
    assert len(str(raised.value).splitlines()) == 3


def test_a_column_that_is_not_text_is_named_where_it_stands(smallest):
    smallest.write_text(smallest.read_text().replace("  u: {kind", "  3: {kind"))
    with pytest.raises(ConfigError, match=r"features\.3: as a name, expected a valid string, got 3"):
        load_config(smallest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values, found nothing"),
        (b"- a\n- b\n", "expected keys and values, found list"),
        (b"text", "expected keys and values, found str"),
        (b"name: a\ndata: {}\nname: b\n", r":3: not valid YAML: found duplicate key \"name\""),
        (b"data:\n  user: u\n  user: v\n", r":3: not valid YAML: found duplicate key \"user\""),
        (b"name: [a\n", "not valid YAML"),
        (b"\tname: a\n", ":1: not valid YAML"),
        (b"name: \x00\n", "not valid YAML: unacceptable character"),
        (b"name: 2026-13-01\n", "not valid YAML: month must be in 1..12"),
        (b"name: !!int x\n", "not valid YAML: invalid literal"),
        (b"name: " + b"9" * 5000, "not valid YAML: Exceeds the limit"),
        (b"[" * 2000, "not valid YAML: nested too deeply"),
        (b"name: !!python/object:os.system x\n", ":1: not valid YAML: could not determine a constructor"),
        (b"\xff\xfe", "cannot be read: .*utf-8"),
        (b"name: a\n---\nname: b\n", "not valid YAML: but found another document"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}.*{message}"):
        load_config(path)


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file.*recsys init"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("a\0b")


def test_a_config_never_changes(load):
    with pytest.raises(ValueError, match="frozen"):
        load().name = "other"


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "read", "value"),
        [
            ("training.epochs=3", lambda c: c.training.epochs, 3),
            (" training.epochs = 3", lambda c: c.training.epochs, 3),
            ("training={epochs: 2, batch: 8}", lambda c: (c.training.epochs, c.training.batch), (2, 8)),
            ("data.label.positive='== a=b'", lambda c: c.data.label.positive, "== a=b"),
            ("data.display=null", lambda c: c.data.display, None),
            ("evaluation.slices=[[u], [i]]", lambda c: c.evaluation.slices, [["u"], ["i"]]),
            ("beam.args=[--a=1]", lambda c: c.beam.args, ["--a=1"]),
            ("validation.schema=s.pbtxt", lambda c: c.validation.schema_file, "s.pbtxt"),
        ],
    )
    def test_a_value_is_read_as_yaml(self, load, override, read, value):
        assert read(load(override)) == value

    def test_later_ones_win_and_reach_into_lists(self, load):
        config = load(
            "evaluation.slices=[[u], [i]]", "evaluation.slices.1=[u, i]", "training.epochs=2", "training.epochs=4"
        )
        assert config.evaluation.slices == [["u"], ["u", "i"]]
        assert config.training.epochs == 4

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("training.epochs", "expected KEY.PATH=VALUE"),
            ("=3", "expected KEY.PATH=VALUE"),
            ("training..epochs=3", "expected KEY.PATH=VALUE"),
            ("data.user.name=x", "data.user is a single value, it has no keys"),
            ("training.epochs=[", "not valid YAML"),
            ("evaluation.slices.2=[u]", "'2' is not an index of a list of 1"),
            ("evaluation.slices.²=[u]", "'²' is not an index of a list of 1"),
            ("evaluation.slices.x.y=u", "'x' is not an index of a list of 1"),
        ],
    )
    def test_a_wrong_one_is_named(self, load, override, message):
        with pytest.raises(ConfigError, match=f"^--set {re.escape(override)}.*{message}"):
            load("evaluation.slices=[[u]]", override)

    def test_what_shares_an_anchor_does_not_change_with_it(self, smallest):
        features = "features:\n  u: &id {kind: vocabulary, of: user}\n  v: *id\n  i: {kind: vocabulary, of: item}\n"
        smallest.write_text(smallest.read_text().partition("features:")[0] + features)
        config = load_config(smallest, ["features.u.oov=9"])
        assert (config.features["u"].oov, config.features["v"].oov) == (9, 1)


TREE = YAML(typ="safe").load(Path(COMMITTED[0]).read_text(encoding="utf-8"))


def shuffled(tree, random):
    if isinstance(tree, dict):
        keys = list(tree)
        random.shuffle(keys)
        return {key: shuffled(tree[key], random) for key in keys}
    return tree


class TestDigest:
    @given(random=st.randoms())
    def test_the_order_of_keys_does_not_count(self, random):
        original = config_from_tree(TREE, COMMITTED[0])
        assert digest(config_from_tree(shuffled(TREE, random), COMMITTED[0])) == digest(original)

    def test_where_the_file_lies_does_not_count(self):
        assert digest(config_from_tree(TREE, "a/b.yaml")) == digest(config_from_tree(TREE, "/c.yaml"))

    @pytest.mark.parametrize(
        "override", ["name=x", "features.u.oov=2", "training.seed=2", "data.label.positive='> 1'", "baselines={}"]
    )
    def test_any_value_counts(self, load, override):
        assert digest(load(override)) != digest(load())

    def test_a_default_written_out_is_the_same(self, load):
        assert digest(load("training.epochs=50", "data.format=null")) == digest(load())

    def test_parts_and_plain_values_have_digests(self, load):
        config = load()
        assert digest(config.data) != digest(config.training)
        assert digest(config.data, {"a": [1, None]}) == digest(load().data, {"a": [1, None]})
        assert digest("a", "b") != digest("ab")
        assert re.fullmatch("[0-9a-f]{16}", digest(config))

    def test_what_is_written_reads_back_the_same(self, load):
        config = load(
            "validation.schema=x",
            "features.w={kind: numeric, of: user, from: ww}",
            "data.time_range=[2020-01-01, 2021-01-01]",
        )
        tree = YAML(typ="safe").load(canonical_json(config))
        assert canonical_json(config_from_tree(tree, config.path)) == canonical_json(config)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def paths(tree, prefix=()):
    yield prefix
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from paths(value, (*prefix, key))


def replaced(tree, path, value):
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


class TestNothingButConfigErrors:
    @given(text=st.text())
    @settings(max_examples=100)
    def test_for_any_text(self, tmp_path_factory, text):
        path = tmp_path_factory.getbasetemp() / "any.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ConfigError, match=r"any\.yaml"):
            load_config(path)

    @given(content=st.binary())
    def test_for_any_bytes(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / "any.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"any\.yaml"):
            load_config(path)

    @given(text=st.text(alphabet="{}[]:,-&*!|>'\"%@`#?~= \n\tab01._<", max_size=40))
    @settings(max_examples=100)
    def test_for_any_text_that_looks_like_yaml(self, tmp_path_factory, text):
        path = tmp_path_factory.getbasetemp() / "any.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"any\.yaml"):
            load_config(path)

    @given(path=st.sampled_from([p for p in paths(TREE) if p]), value=plain)
    @settings(max_examples=100)
    def test_for_any_value_at_any_place(self, path, value):
        with suppress(ConfigError):
            assert digest(config_from_tree(replaced(TREE, path, value), "any.yaml"))

    @given(
        override=st.text()
        | st.tuples(st.sampled_from([".".join(map(str, p)) for p in paths(TREE)]), st.text()).map("=".join)
    )
    @settings(max_examples=100)
    def test_for_any_override(self, override):
        with suppress(ConfigError):
            assert digest(load_config(COMMITTED[0], [override]))


def _alias_bomb(first, line):
    return first + "".join(line.format(n=n, before=", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_alias_bomb("a0: &a0 [x, x]\n", "a{n}: &a{n} [{before}]\n"), "aliases stand for more than"),
        (_alias_bomb("a0: &a0 {x: 1}\n", "a{n}: &a{n}\n  <<: [{before}]\n"),
         "aliases stand for more than"),
        ("a: &a [*a]\n", "an anchor that holds itself"),
        ("a: " + "x" * 300_000, "a config has at most"),
    ],
    ids=["lists", "merges", "cycle", "size"],
)  # fmt: skip
def test_a_config_that_grows_beyond_measure_is_refused_at_once(tmp_path, content, message):
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(file)
