--
-- Options of servers and user mappings, settings, and which server is meant.
--
\pset format unaligned
\pset tuples_only on

-- hosts that may not receive secrets have their place below
SET accessreq.allowed_hosts = '*.api.identitynow.com, 127.0.0.1';

CREATE FUNCTION pg_temp.server(options text) RETURNS text LANGUAGE sql AS $$
	SELECT tst.fails('CREATE SERVER t FOREIGN DATA WRAPPER accessreq OPTIONS (' || options || '); DROP SERVER t')
$$;
CREATE FUNCTION pg_temp.mapping(options text) RETURNS text LANGUAGE sql AS $$
	SELECT tst.fails('CREATE USER MAPPING FOR CURRENT_USER SERVER m OPTIONS (' || options
					 || '); DROP USER MAPPING FOR CURRENT_USER SERVER m')
$$;
-- an option beside the two that every server needs
CREATE FUNCTION pg_temp.option(option text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.server('base_url ''https://acme.api.identitynow.com'', api ''v2024'', ' || option)
$$;
CREATE FUNCTION pg_temp.url(url text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.server(format('base_url %L, api ''v2024''', url))
$$;

-- what a server must have
SELECT pg_temp.server($$api 'v2024'$$);
SELECT pg_temp.server($$base_url 'https://acme.api.identitynow.com'$$);
SELECT pg_temp.server($$base_url 'https://acme.api.identitynow.com', api 'v2023'$$);
SELECT pg_temp.server($$base_url 'https://acme.api.identitynow.com', api 'V2024'$$);
SELECT api, pg_temp.server(format('base_url ''https://acme.api.identitynow.com'', api %L', api))
FROM unnest('{beta,v3,v2024,v2025,v2026,v1}'::text[]) api;
CREATE SERVER t FOREIGN DATA WRAPPER accessreq;

-- what it cannot have
SELECT pg_temp.option($$nonsense '1'$$);
SELECT pg_temp.option($$client_secret 's3cret'$$);
SELECT pg_temp.option($$client_id 'x'$$);
SELECT pg_temp.option($$client_secret_file '/x'$$);
SELECT pg_temp.option($$access_token 's3cret'$$);
SELECT tst.fails('ALTER FOREIGN DATA WRAPPER accessreq OPTIONS (base_url ''https://x'')');

-- base_url
SELECT pg_temp.url('https://acme.api.identitynow.com/');
SELECT pg_temp.url('https://ACME.api.identitynow.com:443/prefix/');
SELECT pg_temp.url('HTTPS://acme.api.identitynow.com');
SELECT url, pg_temp.url(url) FROM unnest(ARRAY['https://acme.api.identitynow.com/v3',
	'https://acme.api.identitynow.com/beta/', 'https://acme.api.identitynow.com/x/v2024',
	'https://acme.api.identitynow.com/v1']) url;
SELECT pg_temp.url('https://acme.api.identitynow.com/vault');
SELECT translate(url, E'\r\n', '~~'), pg_temp.url(url) FROM unnest(ARRAY['https://me:pw@acme.api.identitynow.com', 'https://me@acme.api.identitynow.com',
	'https://acme.api.identitynow.com?x=1', 'https://acme.api.identitynow.com#x',
	'acme.api.identitynow.com', 'ftp://acme.api.identitynow.com', '', 'https://', 'https:///path',
	'https://acme.api.identitynow.com:0', 'https://acme.api.identitynow.com:65536', 'https://acme.api.identitynow.com:x',
	'https://acme.api.identitynow.com/../x', 'https://acme.api.identitynow.com//x', 'https://acme.api.identitynow.com/%2e',
	'https://acme.api.identitynow.com\x', 'https://acme .api.identitynow.com', E'https://acme.api.identitynow.com\r\nX: y',
	'https://acmé.api.identitynow.com', 'https://*.api.identitynow.com']) url;
-- http is for this machine alone
SELECT url, pg_temp.url(url) FROM unnest(ARRAY['http://acme.api.identitynow.com', 'http://127.0.0.1.evil.com',
	'http://128.0.0.1', 'http://127.0.0.1', 'http://127.1.2.3:8080', 'http://localhost', 'http://[::1]:8080']) url;
-- a host that may not receive secrets is a warning here, so that a dump can be restored
SELECT pg_temp.url('https://acme.example.com');
SET accessreq.allowed_hosts = '*.example.com';
SELECT pg_temp.url('https://acme.example.com');
SELECT pg_temp.url('https://example.com');
SELECT pg_temp.url('https://evilexample.com');
SET accessreq.allowed_hosts = '*.api.identitynow.com, 127.0.0.1';
-- token_url follows the same rules, but may end in anything
SELECT pg_temp.option($$token_url 'https://acme.api.identitynow.com/oauth/v2'$$);
SELECT pg_temp.option($$token_url 'http://acme.api.identitynow.com/oauth/token'$$);
SELECT pg_temp.option($$token_url 'https://u@acme.api.identitynow.com/oauth/token'$$);

-- types and ranges
SELECT option, pg_temp.option(option) FROM unnest(ARRAY[
	$$connect_timeout '5s'$$, $$connect_timeout '250'$$, $$connect_timeout '0'$$, $$connect_timeout '25h'$$,
	$$connect_timeout 'soon'$$, $$connect_timeout '5 parsecs'$$,
	$$request_timeout '1min'$$, $$request_timeout '1d'$$, $$request_timeout '-1'$$, $$request_timeout ''$$,
	$$rate_limit '0'$$, $$rate_limit '1000'$$, $$rate_limit '1001'$$, $$rate_limit '-1'$$, $$rate_limit '10s'$$, $$rate_limit 'x'$$,
	$$max_concurrency '1'$$, $$max_concurrency '32'$$, $$max_concurrency '33'$$, $$max_concurrency '0'$$,
	$$read_only 'on'$$, $$read_only 'false'$$, $$read_only 'maybe'$$,
	$$user_agent 'mine/1.0'$$, $$user_agent ''$$,
	$$ca_file '/etc/ssl/ca.pem'$$, $$ca_file 'ca.pem'$$,
	$$proxy 'http://proxy.example.com:3128'$$, $$proxy 'https://proxy.example.com'$$,
	$$proxy 'socks5://proxy'$$, $$proxy 'http://u:p@proxy'$$]) option;
SELECT tst.fails(format('CREATE SERVER t FOREIGN DATA WRAPPER accessreq OPTIONS (base_url ''https://acme.api.identitynow.com'', api ''v2024'', user_agent %L)',
						E'a\r\nX-Evil: 1'));
SELECT tst.fails(format('CREATE SERVER t FOREIGN DATA WRAPPER accessreq OPTIONS (base_url ''https://acme.api.identitynow.com'', api ''v2024'', user_agent %L)',
						repeat('x', 257)));

-- mappings: a client with one secret, or a token
CREATE SERVER m FOREIGN DATA WRAPPER accessreq OPTIONS (base_url 'https://acme.api.identitynow.com', api 'v2024');
SELECT options, pg_temp.mapping(options) FROM unnest(ARRAY[
	$$client_id 'a', client_secret 'b'$$, $$client_id 'a', client_secret_file '/run/secret'$$, $$access_token 'c'$$,
	$$client_id 'a'$$, $$client_secret 'b'$$, $$client_secret_file '/run/secret'$$,
	$$client_id 'a', client_secret 'b', client_secret_file '/run/secret'$$,
	$$client_id 'a', client_secret 'b', access_token 'c'$$, $$client_id 'a', access_token 'c'$$,
	$$client_id '', client_secret 'b'$$, $$client_id 'a', client_secret ''$$, $$client_id 'a', client_secret_file 'secret'$$,
	$$base_url 'https://acme.api.identitynow.com'$$, $$password 'x'$$, $$user 'x'$$]) options;
SELECT tst.fails('CREATE USER MAPPING FOR CURRENT_USER SERVER m');
CREATE USER MAPPING FOR CURRENT_USER SERVER m OPTIONS (client_id 'a', client_secret 'b');
-- a rotation cannot leave two
SELECT tst.fails($$ALTER USER MAPPING FOR CURRENT_USER SERVER m OPTIONS (ADD client_secret_file '/run/secret')$$);
ALTER USER MAPPING FOR CURRENT_USER SERVER m OPTIONS (DROP client_secret, ADD client_secret_file '/nowhere/secret');
DROP SERVER m CASCADE;

-- what makes the server open files, or send through others, wants a right
CREATE ROLE accessreq_test_user;
GRANT USAGE ON FOREIGN DATA WRAPPER accessreq TO accessreq_test_user;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tst TO accessreq_test_user;
GRANT USAGE ON SCHEMA tst TO accessreq_test_user;
SET ROLE accessreq_test_user;
SELECT option, pg_temp.option(option) FROM unnest(ARRAY[$$ca_file '/etc/ssl/ca.pem'$$,
	$$proxy 'http://proxy.example.com:3128'$$, $$read_only 'on'$$]) option;
CREATE SERVER m FOREIGN DATA WRAPPER accessreq OPTIONS (base_url 'https://acme.api.identitynow.com', api 'v2024');
SELECT pg_temp.mapping($$client_id 'a', client_secret_file '/run/secret'$$);
RESET ROLE;
-- and so does altering anything beside it
ALTER SERVER m OPTIONS (ADD ca_file '/etc/ssl/ca.pem');
SET ROLE accessreq_test_user;
SELECT tst.fails($$ALTER SERVER m OPTIONS (ADD rate_limit '5')$$);
SELECT tst.fails($$ALTER SERVER m OPTIONS (DROP ca_file)$$);
RESET ROLE;
GRANT pg_read_server_files TO accessreq_test_user;
SET ROLE accessreq_test_user;
SELECT tst.fails($$ALTER SERVER m OPTIONS (ADD rate_limit '5')$$);
SELECT pg_temp.mapping($$client_id 'a', client_secret_file '/run/secret'$$);
RESET ROLE;
DROP SERVER m;

-- what is refused at use: hosts, and everything where calls are off
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
SET accessreq.allowed_hosts = '*.api.identitynow.com';
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
SET accessreq.allowed_hosts = '';
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
SET accessreq.allowed_hosts = '127.0.0.1';
ALTER SERVER acme OPTIONS (ADD token_url 'https://elsewhere.example.com/oauth/token');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
ALTER SERVER acme OPTIONS (DROP token_url);
SET accessreq.enabled = off;
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
SELECT tst.fails($$SELECT * FROM accessreq.refresh('{x}', server => 'acme')$$);
CALL accessreq.sync('acme');
\echo :LAST_ERROR_SQLSTATE
RESET accessreq.enabled;

-- a secret from a file: read at use, by the rule of ssl_key_file
SELECT current_setting('data_directory') || '/accessreq_test_secret' AS file \gset
COPY (SELECT 'sandbox-secret') TO :'file';
COPY (SELECT 'x') TO PROGRAM 'cat > /dev/null; chmod 600 accessreq_test_secret';
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (DROP client_secret, ADD client_secret_file :'file');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
COPY (SELECT 'x') TO PROGRAM 'cat > /dev/null; chmod 644 accessreq_test_secret';
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_id 'regress2');
SELECT regexp_replace(tst.fails($$SELECT accessreq.count_status(server => 'acme')$$), '"/.*/', '"<dir>/');
COPY (SELECT 'x') TO PROGRAM 'cat > /dev/null; rm accessreq_test_secret';
SELECT regexp_replace(tst.fails($$SELECT accessreq.count_status(server => 'acme')$$), '"/.*/', '"<dir>/');
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (DROP client_secret_file, ADD client_secret 'sandbox-secret', SET client_id 'regress');

-- read_only: only what reads leaves
ALTER SERVER acme OPTIONS (ADD read_only 'true');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
SELECT tst.fails($$SELECT accessreq.cancel('x', 'y', server => 'acme')$$);
SELECT tst.fails($$SELECT * FROM accessreq.cancel_many('{x}', 'y', server => 'acme')$$);
SELECT tst.fails($$SELECT * FROM accessreq.close('{x}', server => 'acme')$$);
SELECT tst.fails($$SELECT accessreq.create(b, server => 'acme') FROM accessreq.grant_request('{p}', 'ROLE', 'r') b$$);
SELECT tst.fails($$SELECT accessreq.set_config('{}', server => 'acme')$$);
SELECT tst.fails($$SELECT accessreq.merge_config('{}', server => 'acme')$$);
SELECT jsonb_typeof(accessreq.get_config(server => 'acme'));
ALTER SERVER acme OPTIONS (DROP read_only);
-- so does a read-only transaction
BEGIN READ ONLY;
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
SELECT accessreq.cancel('x', 'y', server => 'acme');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM accessreq.refresh('{x}', server => 'acme');
ROLLBACK;

-- a change of the server or the mapping counts at once
SELECT tst.forget();
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
ALTER SERVER acme OPTIONS (ADD user_agent 'regress/1');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');
SELECT regexp_replace(r->>'user_agent', '[(]PostgreSQL [0-9].*[)]', '(PostgreSQL <version>)')
FROM jsonb_array_elements(tst.admin('GET', 'requests')) r WHERE r->>'api' <> 'token';
ALTER SERVER acme OPTIONS (DROP user_agent);
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_secret 'wrong');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_secret 'sandbox-secret');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"', server => 'acme');

-- settings
SELECT name, setting, unit, context, vartype, min_val, max_val FROM pg_settings
WHERE name LIKE 'accessreq.%' AND name <> 'accessreq.allowed_hosts' ORDER BY name COLLATE "C";
SELECT boot_val, context FROM pg_settings WHERE name = 'accessreq.allowed_hosts';
SET accessreq.request_timeout = '45s';
SHOW accessreq.request_timeout;
SET accessreq.request_timeout = '1min';
SHOW accessreq.request_timeout;
-- 17 tells the range with its unit
SELECT regexp_replace(tst.fails($$SET accessreq.request_timeout = '0'$$), ' \(.*', '');
SELECT tst.fails($$SET accessreq.request_timeout = '10MB'$$);
RESET accessreq.request_timeout;
SET accessreq.max_response_size = '1MB';
SHOW accessreq.max_response_size;
SELECT regexp_replace(tst.fails($$SET accessreq.max_response_size = '2GB'$$), ' \(.*', '');
RESET accessreq.max_response_size;
SELECT tst.fails($$SET accessreq.max_retries = '-1'$$);
SELECT tst.fails($$SET accessreq.requst_timeout = '1s'$$);
SET ROLE accessreq_test_user;
SELECT setting, tst.fails(setting) FROM unnest(ARRAY['SET accessreq.allowed_hosts = ''*''', 'SET accessreq.enabled = on',
	'SET accessreq.log_writes = off', 'SET accessreq.server = ''x''', 'SET accessreq.max_retries = 0']) setting;
RESET ROLE;
RESET ALL;

-- an option of the server wins over the setting
SELECT tst.fault('hang', 'access-request-status', '{"count": -1}');
SET accessreq.request_timeout = '300ms';
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
SET accessreq.request_timeout = '20min';
ALTER SERVER acme OPTIONS (ADD request_timeout '200ms');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'acme')$$);
SELECT tst.admin('DELETE', 'fault');
ALTER SERVER acme OPTIONS (DROP request_timeout);
RESET accessreq.request_timeout;

-- which server is meant where none is named
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"');
SELECT tst.create_server('second', 'v2025');
SELECT tst.fails($$SELECT accessreq.count_status()$$);
SET accessreq.server = 'second';
SELECT tst.forget();
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"');
SELECT path FROM tst.asked();
SET accessreq.server = 'nowhere';
SELECT tst.fails($$SELECT accessreq.count_status()$$);
SET accessreq.server = '';
SELECT tst.fails($$SELECT accessreq.count_status()$$);
RESET accessreq.server;
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER otherone FOREIGN DATA WRAPPER other;
SELECT tst.fails($$SELECT accessreq.count_status(server => 'otherone')$$);
SELECT tst.fails($$SELECT accessreq.count_status(server => 'nowhere')$$);
DROP FOREIGN DATA WRAPPER other CASCADE;
-- only those that the role may use count
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO accessreq_test_user;
SET ROLE accessreq_test_user;
SELECT tst.fails($$SELECT accessreq.count_status()$$);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER second TO accessreq_test_user;
SET ROLE accessreq_test_user;
SELECT tst.fails($$SELECT accessreq.count_status()$$);
RESET ROLE;
DROP SERVER second CASCADE;
DROP OWNED BY accessreq_test_user;
DROP ROLE accessreq_test_user;
