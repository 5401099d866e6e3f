#!/usr/bin/env bash
# Run once, on an empty server: the role and the database of cubeopt. Optuna's tables go into the
# schema public, ours into the schema cubeopt; both are made by the first cubeopt command.
set -euo pipefail

psql -v ON_ERROR_STOP=1 -v password="${CUBEOPT_PASSWORD:?}" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE cubeopt LOGIN PASSWORD :'password';
CREATE DATABASE cubeopt OWNER cubeopt;
SQL
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname cubeopt <<'SQL'
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO cubeopt;
SQL
