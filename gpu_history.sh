#!/usr/bin/env bash
# The history of this project: 29 experiments, from the plain baseline to what came after it.
#
#     bash gpu_history.sh [flags for every run, as --data_dir data --epochs 30]
#     bash gpu_history.sh --dry_run ...      only print the commands, and an estimate of the hours
#     SEEDS="0 1 2" bash gpu_history.sh ...  each experiment once per seed, as NAME/seed0 and so on
#     GPUS="0 1" bash gpu_history.sh ...     one run at a time on each of these cards
#
# Finished runs are left alone and interrupted ones go on. Compare them with: python -m utils.report checkpoint
set -euo pipefail

A="--optimizer ADAM --learning_rate 0.0001"
R="--optimizer RADAM --learning_rate 0.0001"
W="--decay_type step_warmup"
C="--decay_type cosine_warmup"
S="--label_smooth 0.1"
M="--mixup 0.2"
CM="--cutmix_alpha 1.0 --cutmix_prob 1.0"
EN="--model EfficientNet"
RN="--model RegNet"

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}" ] && [ -x "$here/.venv/bin/python" ]; then python=$here/.venv/bin/python; fi
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -m utils.batch "$@" <<EXPERIMENTS

# ResNet-50 with SGD
baseline_scratch                                    --pretrained 0
baseline
baseline_warmup                                     $W
baseline_zerogamma                                  --zero_gamma
baseline_warmup_zerogamma                           $W --zero_gamma

# with Adam
baseline_Adam                                       $A
baseline_Adam_warmup                                $A $W
baseline_Adam_warmup_cosine                         $A $C
baseline_Adam_warmup_labelsmooth                    $A $W $S
baseline_Adam_warmup_mixup                          $A $W $M
baseline_Adam_warmup_labelsmooth_mixup              $A $W $S $M
baseline_Adam_warmup_cosine_labelsmooth             $A $C $S
baseline_Adam_warmup_cosine_mixup                   $A $C $M
baseline_Adam_warmup_cosine_labelsmooth_mixup       $A $C $S $M
baseline_Adam_warmup_cosine_cutmix                  $A $C $CM

# with RAdam, RandAugment, EvoNorm ("labelsmmoth" is how that run has always been spelt)
baseline_RAdam_warmup_cosine_labelsmooth            $R $C $S
baseline_Adam_warmup_cosine_labelsmooth_randaug     $A $C $S --randaugment
baseline_Adam_warmup_cosine_labelsmmoth_evonorm     $A $C $S --norm evonorm
baseline_RAdam_warmup_cosine_cutmix                 $R $C $CM

# EfficientNet-B2
efficientnet_Adam_warmup_cosine_labelsmooth         $EN $A $C $S
efficientnet_Adam_warmup_cosine_labelsmooth_mixup   $EN $A $C $S $M
efficientnet_Adam_warmup_cosine_cutmix              $EN $A $C $CM
efficientnet_RAdam_warmup_cosine_labelsmooth        $EN $R $C $S
efficientnet_RAdam_warmup_cosine_cutmix             $EN $R $C $CM

# RegNetY-1.6GF
regnet_Adam_warmup_cosine_labelsmooth               $RN $A $C $S
regnet_Adam_warmup_cosine_labelsmooth_mixup         $RN $A $C $S $M
regnet_Adam_warmup_cosine_cutmix                    $RN $A $C $CM
regnet_RAdam_warmup_cosine_labelsmooth              $RN $R $C $S
regnet_RAdam_warmup_cosine_cutmix                   $RN $R $C $CM
EXPERIMENTS
