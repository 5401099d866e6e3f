#!/usr/bin/env bash
# The whole way, once and for real, by the commands that a person would type.
# Usage: quickstart.sh CUBEOPT   Running it again continues, or shows what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
cubeopt=${1:-cubeopt}

run() {
    printf '\n$ cubeopt %s\n' "$*"
    "$cubeopt" "$@"
}

run db up
run data build --sample --task reconstruct --out "${CUBEOPT_HOME:-storage}/data/quickstart"
run study create studies/quickstart.yaml --exist-ok
run worker --cpu --study quickstart --pack 2 --until-done
run study show quickstart
run study export quickstart
run study figure quickstart

cat <<END

Watch it in the Optuna dashboard:   $cubeopt dashboard
Stop the database:                  $cubeopt db stop
END
