#!/usr/bin/env bash
# Run once, on an empty server: the role and the database of cubeopt. Optuna's tables go into the
# schema public, ours into the schema cubeopt; both are made by the first cubeopt command.
set -euo pipefail

psql -v ON_ERROR_STOP=1 -v password="${CUBEOPT_PASSWORD:?}" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
SET log_min_duration_statement = -1;  -- a slow statement is logged, and this one has a password
CREATE ROLE cubeopt LOGIN PASSWORD :'password';
CREATE DATABASE cubeopt OWNER cubeopt TEMPLATE template0 ENCODING 'UTF8';
SQL
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname cubeopt <<'SQL'
-- The role is called like our schema, which would come first and catch Optuna's tables.
ALTER ROLE cubeopt IN DATABASE cubeopt SET search_path = public;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO cubeopt;
SQL
