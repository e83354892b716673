"""Methods by name, with options of the right kind."""

import pytest

from howsparse.errors import InputError
from howsparse.methods import METHODS, load_method
from methods_for_tests import small

OPTIONS = {
    "gradual:begin=0.25,end=1": {"begin": 0.25, "end": 1.0},
    "lottery_ticket:fraction=0.5,rewind=2": {"fraction": 0.5, "rewind": 2},
    "lottery_ticket: fraction=1e-1, rewind=0": {"fraction": 0.1, "rewind": 0},
    "one_shot:fine_tune=3": {"fine_tune": 3},
    "random:layers=erk": {"layers": "erk"},
    "surgeon:repair=layers,order=erk,examples=50": {"repair": "layers", "order": "erk", "examples": 50},
    "rare_gems:l2=0,learning_rate=1,period=2": {"l2": 0.0, "learning_rate": 1.0, "period": 2},
}


@pytest.mark.parametrize(("text", "options"), OPTIONS.items(), ids=OPTIONS)
def test_options_have_the_type_of_their_default(text: str, options: dict[str, object]) -> None:
    method = load_method(text)
    assert method.keywords == options
    assert [type(value) for value in method.keywords.values()] == [type(value) for value in options.values()]
    assert method.func.__name__ == text.partition(":")[0]


@pytest.mark.parametrize("name", METHODS)
def test_without_options_the_defaults_stand(name: str) -> None:
    method = load_method(name)
    assert (method.func.__name__, method.keywords) == (name, {})


BAD = {
    "lottery": "no method is called 'lottery'; choose from: dense, gradual, limit_guided, lottery_ticket, one_shot,",
    "": "no method is called ''",
    "stages": "no method is called 'stages'",
    "__init__": "no method is called '__init__'",
    "dense:rate=1": "dense has no option 'rate'; it has: none",
    "lottery_ticket:rewnd=1": "lottery_ticket has no option 'rewnd'; it has: fraction, rewind",
    "lottery_ticket:fraction": "option fraction of lottery_ticket does not take '': ",
    "lottery_ticket:rewind=1.5": "option rewind of lottery_ticket does not take '1.5': ",
    "one_shot:fine_tune=many": "option fine_tune of one_shot does not take 'many': ",
    "rare_gems:on_freeze=x": "rare_gems has no option 'on_freeze'; it has: l2, learning_rate, period",
    "random:layers=all": "option layers of random does not take 'all': ",
    "random:seed=1": "random has no option 'seed'; it has: layers",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=BAD)
def test_what_is_unknown_is_an_input_error(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_method(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


OUT_OF_RANGE = {
    "gradual:begin=0.5,end=0.5": "begin 0.5 and end 0.5 are wrong",
    "gradual:begin=-0.1": "begin -0.1 and end 0.75 are wrong",
    "gradual:end=1.1": "begin 0 and end 1.1 are wrong",
    "lottery_ticket:fraction=0": "fraction 0 is outside",
    "lottery_ticket:fraction=1": "fraction 1 is outside",
    "lottery_ticket:fraction=nan": "fraction nan is outside",
    "lottery_ticket:rewind=5": "rewind 5 is outside the problem's 5 epochs",
    "lottery_ticket:rewind=-1": "rewind -1 is outside the problem's 5 epochs",
    "one_shot:fine_tune=-1": "fine_tune -1 is negative",
    "rare_gems:period=0": "period 0 is outside the problem's 5 epochs",
    "rare_gems:period=6": "period 6 is outside the problem's 5 epochs",
    "rare_gems:learning_rate=-1": "learning_rate -1 and l2 1e-05 must be at least 0",
    "rare_gems:l2=nan": "learning_rate 0.1 and l2 nan must be at least 0",
    "smart_ratio": "smart_ratio is for networks with convolutions, and this one has none",
    "surgeon:repair=best": "repair 'best' is not known; use one of none, ",
    "surgeon:order=best": "order 'best' is not known; use one of magnitude, ",
    "surgeon:examples=0": "0 examples are not enough",
}


@pytest.mark.parametrize(("text", "message"), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE)
def test_what_is_out_of_range_is_an_input_error(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_method(text)(small(), 0.5)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
