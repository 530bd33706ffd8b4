-- The functions of store_bench.c; :module is its path without ".so".
CREATE SCHEMA bench;
CREATE FUNCTION bench.item(i bigint, version int DEFAULT 0) RETURNS bytea
	AS :'module', 'store_bench_item' LANGUAGE C STRICT;
CREATE FUNCTION bench.page(server text, page bytea,
	sent_at timestamptz DEFAULT clock_timestamp(), keep_raw bool DEFAULT true, lock bool DEFAULT true,
	OUT seen bigint, OUT added bigint, OUT changed bigint, OUT quarantined bigint, OUT replaced bigint,
	OUT outcomes text[])
	AS :'module', 'store_bench_page' LANGUAGE C STRICT;
CREATE PROCEDURE bench.pull(rows bigint, page_size int DEFAULT 250, version int DEFAULT 0, every int DEFAULT 0)
	AS :'module', 'store_bench_pull' LANGUAGE C;
CREATE FUNCTION bench.memory() RETURNS bigint
	AS :'module', 'store_bench_memory' LANGUAGE C;
