from dragoman.translators.steps import Steps, at_once


def test_the_result_is_what_the_last_step_returns() -> None:
    taken: list[int] = []

    def work() -> Steps[str]:
        for number in range(3):
            taken.append(number)
            yield
        return "done"

    assert at_once(work()) == "done"
    assert taken == [0, 1, 2]
