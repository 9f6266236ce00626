#!/usr/bin/env bash
# What train.sh, train_two_nodes.sh and fit_flow.sh share; they source this file. It reads options, checks paths, keeps
# the recipe's batch on other numbers of GPUs, and starts accelerate.

launcher="$(basename "$0" .sh)"
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
root="$(dirname "$scripts")/"
[ "$root" != "$PWD/" ] || root=""

fail() { echo "$launcher: $*" >&2; exit 2; }

see="see the head of scripts/$launcher.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$scripts/$launcher.sh"; exit "$1"; }

positive() { [[ "$2" =~ ^[1-9][0-9]*$ ]] || fail "$1 is $2; it must be a whole number of 1 or more."; }

# A number that the recipe sets, as `key: 8`.
recipe_number() { sed -n "s/^\(# \)\{0,1\}$1: \([0-9][0-9]*\).*/\2/p" "$recipe_file" | head -n 1; }

read_options() {  # sets the variables below
  recipe="" model="" data="" flow="" out="" gpus="" sharding="" resume=0 dry=0 rest=()
  node_rank="" main_address="" main_port=29500
  while [ $# -gt 0 ]; do
    case "$1" in
      --resume) resume=1; shift; continue ;;
      --dry-run) dry=1; shift; continue ;;
      --help | -h) usage 0 ;;
      --) shift; rest=("$@"); break ;;
      --recipe | --model | --data | --out | --gpus) ;;
      --flow | --accelerate) [ "$command" = train ] || fail "unknown option $1; $see" ;;
      --node-rank | --main-address | --main-port)
        [ "$nodes" -gt 1 ] || fail "unknown option $1; it is an option of scripts/train_two_nodes.sh" ;;
      *) fail "unknown option $1; $see, and put options of rlfr after --" ;;
    esac
    [ $# -gt 1 ] && [[ "$2" != --* ]] || fail "$1 has no value; $see"
    case "$1" in
      --recipe) recipe="$2" ;;
      --model) model="$2" ;;
      --data) data="$2" ;;
      --flow) flow="$2" ;;
      --out) out="$2" ;;
      --gpus) gpus="$2" ;;
      --accelerate) sharding="$2" ;;
      --node-rank) node_rank="$2" ;;
      --main-address) main_address="$2" ;;
      --main-port) main_port="$2" ;;
    esac
    shift 2
  done
}

find_recipe() {  # sets recipe_file
  local prefix=train_
  [ "$command" = train ] || prefix=fit_flow_
  [ -n "$recipe" ] || fail "--recipe is not given. Choose one of: $(names configs/"$prefix")"
  recipe_file="${root}scripts/configs/$recipe.yaml"
  [[ "$recipe" == "$prefix"* && "$recipe" != */* ]] && [ -f "$recipe_file" ] ||
    fail "no recipe $recipe. Choose one of: $(names configs/"$prefix")"
}

# The names of the YAML files of scripts/ that begin so, without their ending.
names() { for file in "$scripts/$1"*.yaml; do basename "$file" .yaml; done | paste -sd ' '; }

# Data sets that rlfr draws or generates itself, as `EMBEDDED_TASKS` of rlfr_vlm/options.py has them.
built_in="digits digits_video word_problems charts clocks grids shapes"
is_built_in() { [[ " $built_in " == *" $1 "* || "$1" == reasoning_gym:?* ]]; }

# Whether a name that is no folder here is the hub's, OWNER/NAME: `outputs/policy` is none if there is a folder outputs.
is_hub_id() { [[ "$1" =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] && [ ! -e "${1%%/*}" ]; }

# Whether --data names rows: something on this machine, a built-in task, or a data set of the hub, which is no file.
names_rows() { [ -e "$1" ] || is_built_in "$1" || { is_hub_id "$1" && [[ ! "$1" =~ $file_of_rows ]]; }; }
file_of_rows='\.(json|jsonl|parquet|csv|tsv|arrow)$'

check_paths() {
  local get="get one with scripts/download_data.sh" fit="Fit one with scripts/fit_flow.sh and name its folder."
  [ -n "$model" ] || fail "--model is not given. Name a model's folder or hub id, or $get."
  [ -f "$model/config.json" ] || is_hub_id "$model" ||
    fail "no model in $model: $model/config.json is missing. Name a model's folder or hub id, or $get."
  local rows="Name a file or folder of rows, a hub id or a built-in task ($built_in), or $get."
  [ -n "$data" ] || fail "--data is not given. $rows"
  names_rows "$data" || fail "no data at $data. $rows"
  [ "$command" = train ] || return 0
  find_method
  if [[ "+$method+" == *+rlfr+* ]]; then
    [ -n "$flow" ] || fail "$chosen uses flow rewards, but --flow is not given: there is no field. $fit"
    [ -e "$flow" ] || fail "no flow field at $flow. $fit"
  elif [ -n "$flow" ]; then
    fail "--flow is $flow, but $chosen uses no flow rewards. Leave --flow out, or choose a train_rlfr recipe."
  fi
}

find_method() {  # sets method, the recipe's or the one that follows --, and chosen, what it comes from
  chosen=$recipe method=$(sed -n 's/^method: *\([a-z+]*\).*/\1/p' "$recipe_file")
  local i
  for ((i = 0; i < ${#rest[@]}; i++)); do
    case "${rest[i]}" in
      --method) method="${rest[i + 1]:-}" chosen="--method $method" ;;
      --method=*) method="${rest[i]#--method=}" chosen="--method $method" ;;
    esac
  done
}

choose_sharding() {  # sets sharding: what the recipe's model needs on GPUs of 80 GB
  if [ -z "$sharding" ]; then
    case "$recipe" in
      fit_flow_*) sharding=ddp ;;
      *7b* | *8b*) sharding=zero3 ;;
      *) sharding=zero2 ;;
    esac
    [ $((nodes * gpus)) -gt 1 ] || sharding=ddp
  fi
  [[ " $(names configs/accelerate/) " == *" $sharding "* ]] ||
    fail "--accelerate is $sharding; choose one of: $(names configs/accelerate/)"
}

set_batch() {  # sets accumulation; the recipe's global batch stays on any number of processes
  local made_for per_device recipe_accumulation
  made_for=$(recipe_number processes)
  per_device=$(recipe_number per_device_train_batch_size)
  recipe_accumulation=$(recipe_number gradient_accumulation_steps)
  gpus="${gpus:-$((made_for < 8 ? made_for : 8))}"
  positive --gpus "$gpus"
  processes=$((nodes * gpus))
  local steps=$((made_for * recipe_accumulation))
  local rows=$((steps * per_device))
  [ $((steps % processes)) = 0 ] ||
    fail "$processes GPUs cannot share an update of $rows rows evenly. Choose a number that divides $steps."
  accumulation=$((steps / processes))
  batch="an update has $rows rows = $per_device x $accumulation accumulation steps x $processes (GPUs)"
}

launch() {  # launch COMMAND NODES OPTION...
  command="$1" nodes="$2"
  shift 2
  [ $# -gt 0 ] || usage 2
  read_options "$@"
  find_recipe
  set_batch
  check_paths
  choose_sharding
  out="${out:-outputs/$recipe}"
  local machines=(--num_machines "$nodes" --num_processes "$processes")
  if [ "$nodes" -gt 1 ]; then
    [[ "$node_rank" =~ ^[0-9]+$ ]] && [ "$node_rank" -lt "$nodes" ] ||
      fail "--node-rank is ${node_rank:-not given}; it is 0 on the main node and 1 on the other one."
    [ -n "$main_address" ] || fail "--main-address is not given. Name the main node's address, the same on both nodes."
    positive --main-port "$main_port"
    machines+=(--machine_rank "$node_rank" --main_process_ip "$main_address" --main_process_port "$main_port")
    # without it DeepSpeed would start the other node's processes itself, over ssh
    [[ "$sharding" != zero* ]] || machines+=(--deepspeed_multinode_launcher standard)
  fi
  local line=("${root}.venv/bin/accelerate" launch --config_file "${root}scripts/configs/accelerate/$sharding.yaml"
    "${machines[@]}" -m rlfr_vlm.cli "$command" --config "$recipe_file"
    --model_name_or_path "$model" --dataset_name "$data" --output_dir "$out"
    --gradient_accumulation_steps "$accumulation")
  [ -z "$flow" ] || line+=(--flow_path "$flow")
  [ "$resume" = 0 ] || line+=(--resume auto)
  line+=(${rest[@]+"${rest[@]}"})
  echo "$launcher: $recipe with $sharding; $batch; results in $out"
  printf '+'
  printf ' %q' "${line[@]}"
  echo
  [ "$dry" = 0 ] || exit 0
  [ -x "${line[0]}" ] || fail "${line[0]} is missing. Run: bash scripts/setup.sh --extras vllm,deepspeed,lora"
  exec "${line[@]}"
}
