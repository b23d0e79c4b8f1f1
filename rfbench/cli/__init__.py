"""The commands: parse, call one function, print. In the order and under the headings of `rfbench --help`."""

from rfbench.cli import files, judging, listing, reporting, rewards, running, sampling, sweeping, tuning
from rfbench.cli.app import add, commands, exit_code, main

__all__ = ["exit_code", "main"]

TRAIN, READ, USE, PREPARE, LEARN = "Train", "Read results", "Use what was trained", "Prepare", "Look up and extend"

add(commands, "run", running.run, TRAIN, "rfbench run prdp --suite small-shapes --seed 1 --set epochs=20")
add(commands, "sweep", sweeping.sweep, TRAIN, "rfbench sweep prdp ddpo --suite small-shapes --seeds 0-4")
add(commands, "tune", tuning.tune, TRAIN, "rfbench tune small-shapes --algorithm ddpo --trials 8")
add(commands, "watch", reporting.watch, READ, "rfbench watch results/")
add(commands, "compare", reporting.compare_runs, READ, "rfbench compare results/ --html report.html")
add(commands, "evaluate", judging.evaluate, USE, "rfbench evaluate results/small-shapes/prdp/seed-0 --tier final")
add(commands, "verify", judging.verify, READ, "rfbench verify results/reference/small-shapes/prdp/seed-0 --epochs 2")
add(
    commands,
    "sample",
    sampling.sample_images,
    USE,
    "rfbench sample results/small-shapes/prdp/seed-0 --prompt 'a small red circle at the center'",
)
add(
    commands, "export", sampling.export_weights, USE, "rfbench export results/large-hpsv2/prdp/seed-0 --out my-pipeline"
)
add(commands, "doctor", files.doctor, PREPARE, "rfbench doctor large-hpsv2 --measure")
add(commands, "fetch", files.fetch, PREPARE, "rfbench fetch large-hpsv2")
add(commands, "calibrate", judging.calibrate, PREPARE, "rfbench calibrate large-hpsv2 --tier final")
add(commands, "list", listing.list_names, LEARN, "rfbench list rewards")
add(commands, "show", listing.show, LEARN, "rfbench show small-shapes --algorithm prdp > mine.toml")
add(commands, "new", listing.new_plugin, LEARN, "rfbench new algorithm my-method")
commands.add_typer(rewards.reward_app, name="reward", rich_help_panel=LEARN)
add(rewards.reward_app, "check", rewards.check_reward, None, "rfbench reward check hpsv2 --size 512")
add(rewards.reward_app, "convert", rewards.convert_checkpoint, None, "rfbench reward convert head.pt head.safetensors")
