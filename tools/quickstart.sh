#!/usr/bin/env bash
# From a fresh clone to a trained model and a picture, on two CPU cores, without a network once installed.
#
#   bash tools/quickstart.sh                        installs into .venv, renders data, trains, evaluates, draws
#   bash tools/quickstart.sh train_cfg.max_epochs=2 further arguments change the config, as --cfg-options does
#
# QUICKSTART_TRAIN and QUICKSTART_VAL set the numbers of images (320 and 80); POLYHISTOR_NO_VENV=1 takes the Python in
# use as it is (see tools/environment.sh).
#
# Everything it makes lies under .venv, data/mini_pascal and work_dirs/quickstart. Run again, it goes on where it
# stopped; delete work_dirs/quickstart to train afresh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment openmmlab
cd "$ROOT"
export PYTHONWARNINGS=ignore  # the deprecations of other packages
export OMP_WAIT_POLICY=PASSIVE  # threads that wait and spin would fight with the data loader for two cores

CONFIG=configs/polyhistor_lite/swin-pico_mini-pascal.py
DATA=data/mini_pascal
WORK=work_dirs/quickstart
options=(); [ $# -eq 0 ] || options=(--cfg-options "$@")

if [ ! -f "$DATA/ImageSets/Context/val.txt" ]; then
    echo "1. Rendering a small data set in PASCAL_MT's layout: $DATA"
    "$PYTHON" tools/dataset_converters/make_mini_pascal.py "$DATA" \
        --train "${QUICKSTART_TRAIN:-320}" --val "${QUICKSTART_VAL:-80}" --size 128 --workers 2 --seed 0 --overwrite
else
    echo "1. The data set is there: $DATA"
fi

echo "2. Training Polyhistor-Lite on a frozen Swin for four tasks; the log is $WORK/console.log"
mkdir -p "$WORK"
if ! "$PYTHON" tools/train.py "$CONFIG" --work-dir "$WORK" --resume "${options[@]}" > "$WORK/console.log"; then
    tail -n 25 "$WORK/console.log" >&2
    die "The training failed; the end of its log stands above."
fi

echo "3. Evaluating all four tasks, before and after the training"
"$PYTHON" tools/quickstart_report.py "$CONFIG" --work-dir "$WORK" "${options[@]}"
