#!/usr/bin/env bash
# What only a GPU can show, for the hour when there is one. From the project's root:
#
#     bash tests/gpu_check.sh [PART ...]      without parts, all of them
#
#     tests      (2 minutes) tests/test_cuda.py: equal bits, no waits, memory that stays, EvoNorm's peak, two runs at once
#     demo       the README's first run
#     speed      beside the usual loops, in both memory orders, at 224 and 256 pixels (12 minutes)
#     compile    the same with --compile, and how long it takes to compile at first and again
#     tricks     what each trick costs on ResNet-50
#     history    the 29 experiments from scratch, as far as 9 minutes go; called again it goes on
#
# What it prints goes into the folder OUT (gpu_check) too, a file for each part. PYTHON names the interpreter
# (python3), DATA a folder of images (the demo's, which are drawn). REHEARSE=1 tries it all in small on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-gpu_check} python=${PYTHON:-python3} networks="ResNet50 RegNet EfficientNet" size=224 batches="64 256"
device=cuda seconds=540 history="--image_size 128 --epochs 30"
if [ -n "${REHEARSE:-}" ]; then
    networks="RegNetX-400MF" size=32 batches="8 16" device=cpu seconds=60 history="--image_size 32 --epochs 2 --device cpu"
fi
data=(${DATA:+--data_dir "$DATA"})
mkdir -p "$out"

title() { printf '\n== %s\n' "$*"; }
benchmark() { "$python" -m utils.benchmark "${data[@]}" --device "$device" --rounds 3 "$@"; }

card() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no GPU"
    "$python" -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)'
    date +%F
}

part_tests() { "$python" -m pytest tests/test_cuda.py -v -n 4 -p no:cacheprovider; }

part_demo() {
    "$python" main.py --demo --device "$device" --checkpoint_dir "$out/runs" --overwrite
}

part_speed() {
    for format in channels_last contiguous; do
        for batch in $batches; do
            title "$size pixels, $batch images, $format"
            benchmark --networks $networks --image_size "$size" --batch_size "$batch" \
                --skip input tricks memory --memory_format "$format"
        done
    done
    title "$size pixels, ${batches%% *} images, beside the usual loops" # which take most of the time
    benchmark --baseline --networks $networks --image_size "$size" --batch_size "${batches%% *}" \
        --skip input tricks memory
    title "256 pixels, ${batches%% *} images, as a run does it by itself, with memory"
    benchmark --networks $networks --image_size "$((size * 8 / 7))" --batch_size "${batches%% *}" \
        --skip input tricks
}

part_compile() {
    export TORCHINDUCTOR_CACHE_DIR=$out/compiled
    for network in $networks; do
        rm -rf "$TORCHINDUCTOR_CACHE_DIR"
        for time in "at first" again; do
            title "$network, compiled $time"
            SECONDS=0
            benchmark --networks "$network" --image_size "$size" --batch_size "${batches%% *}" \
                --skip input tricks memory --compile
            echo "$SECONDS seconds in all"
        done
    done
}

part_tricks() {
    benchmark --networks ${networks%% *} --image_size "$size" --batch_size "${batches%% *}" --skip input networks
}

part_history() {
    if [ ${#data[@]} = 0 ]; then
        "$python" -c 'import pathlib, utils.data.demo as demo; demo.draw_demo(pathlib.Path("data/demo"), lambda: None)'
        data=(--data_dir data/demo)
    fi
    PYTHON=$python timeout -s INT "$seconds" bash gpu_history.sh "${data[@]}" --pretrained 0 $history --checkpoint_dir "$out/history" || true
    "$python" -m utils.report "$out/history"
}

failed=0
for part in "${@:-tests demo speed compile tricks history}"; do
    for name in $part; do
        (set -e; title "$name"; card; "part_$name") 2>&1 | tee "$out/$name.txt"
        [ "${PIPESTATUS[0]}" = 0 ] || { failed=1; echo "== $name failed" | tee -a "$out/$name.txt"; }
    done
done
exit "$failed"
