#!/bin/bash
# Run once by the PostgreSQL image, on an empty volume: a user and a database for studies, and both for MLflow.
set -euo pipefail

create() { # name and password
    psql --set ON_ERROR_STOP=1 --username postgres --set name="$1" --set password="$2" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create spikebench "$SPIKEBENCH_DB_PASSWORD"
create mlflow "$MLFLOW_DB_PASSWORD"
