# Runs monitoring-role.sql when docker-compose.yml starts PostgreSQL for the first time; its image calls this file.
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
    --set=password="$POOLSCOPE_PG_PASSWORD" --file=/etc/poolscope/monitoring-role.sql
