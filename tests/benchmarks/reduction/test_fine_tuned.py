"""The benchmark of fine-tuned cuts: what it refuses, and which constant selection it takes."""

from benchmarks.reduction.fine_tuned import CONSTANT, arms, main


def test_the_best_constant_selection_of_the_trial_stands_beside_the_cut():
    figures = ((0.5, 0.5), (0.7, 0.4), (0.6, 0.45))
    trial = {
        arm.name: {"street": one, "synthetic": other}
        for arm, (one, other) in zip(CONSTANT, figures, strict=True)
    }
    chosen = arms({"trial": trial})
    assert [a.kind for a in chosen] == ["dense", "pruned", "rival", "rival", "blocks", "constant"]
    assert chosen[-1] is CONSTANT[1]


def test_a_step_without_a_record_is_refused(tmp_path, capsys):
    record = tmp_path / "none.json"
    assert main(["--only", "time", "-o", str(record)]) == 2
    assert "There is no record" in capsys.readouterr().err and not record.exists()
