# json.c and item.c, in a server: exact cases first, then damaged items at
# random (test/unit/fuzz.c says what must hold for those).  ACCESSREQ_FUZZ is
# the number of damaged texts, ACCESSREQ_FUZZ_SEED the first seed.

use strict;
use warnings;
use utf8;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = abs_path(dirname(__FILE__) . '/../unit');
my $module = "$dir/accessreq_unit";
my $rounds = 10;
my $texts = ($ENV{ACCESSREQ_FUZZ} || 50000) / $rounds;
my $seed = $ENV{ACCESSREQ_FUZZ_SEED} || 1;

die "$module.so is missing: run make -C test/unit first\n"
  unless -e "$module.so";

my $node = PostgreSQL::Test::Cluster->new('unit');
$node->init(extra => [ '--encoding', 'UTF8', '--no-locale' ]);
$node->append_conf('postgresql.conf', "timezone = 'UTC'");
$node->start;

my $items = "pg_read_binary_file('$dir/items.json')";
my $key = 'accountActivityItemId';

sub create_functions
{
	my ($db) = @_;
	my $as = "LANGUAGE c STRICT AS '$module'";

	$node->safe_psql(
		$db, qq(
CREATE FUNCTION unit_cut(page bytea, id_key text, OUT item text, OUT id text,
	OUT replaced int, OUT problem text) RETURNS SETOF record $as;
CREATE FUNCTION unit_clean(bytea) RETURNS bytea $as;
CREATE FUNCTION unit_parse(bytea) RETURNS text $as;
CREATE FUNCTION unit_get(bytea, text) RETURNS text $as;
CREATE FUNCTION unit_get_int(bytea, text) RETURNS bigint $as;
CREATE FUNCTION unit_time(text) RETURNS timestamptz $as;
CREATE FUNCTION unit_decode(bytea) RETURNS text $as;
CREATE FUNCTION unit_fuzz(page bytea, seed bigint, n int, OUT pages bigint,
	OUT pages_cut bigint, OUT items bigint, OUT accepted bigint,
	OUT decoded bigint, OUT replaced bigint, OUT limits bigint,
	OUT growth bigint) RETURNS SETOF record $as;
CREATE FUNCTION unit_bench(page bytea, rounds int, OUT part text,
	OUT us float8, OUT bytes int) RETURNS SETOF record $as;
));
}

# The answer of a query, or the primary message of its error.
sub answer
{
	my ($sql, $db) = @_;
	my ($rc, $out, $err) = $node->psql($db || 'postgres', $sql);

	utf8::decode($out);
	return $out if $rc == 0;
	return $err =~ /ERROR:\s+(.*)/ ? "error: $1" : $err;
}

# Bytes as a SQL expression.
sub bytes
{
	my ($text) = @_;

	utf8::encode($text) if utf8::is_utf8($text);
	return "'\\x" . unpack('H*', $text) . "'::bytea";
}

sub cut_is
{
	my ($page, $expected, $name) = @_;

	is( answer(
			"SELECT string_agg(concat_ws('|', item, 'id=' || id, "
			  . "nullif(replaced, 0), problem), E'\\n') FROM unit_cut("
			  . bytes($page)
			  . ", '$key')"),
		$expected, "cut: $name");
}

sub parse_is
{
	my ($text, $expected, $name) = @_;

	is(answer('SELECT unit_parse(' . bytes($text) . ')'),
		$expected, "parse: $name");
}

sub time_is
{
	my ($text, $expected) = @_;

	is(answer("SELECT coalesce(unit_time('$text')::text, 'none')"),
		$expected, "time: $text");
}

# One field of a decoded item; the item gets an id.
sub field_is
{
	my ($members, $path, $expected, $name) = @_;
	my $text = qq({"$key":"a",$members});

	is( answer(
			'SELECT coalesce(unit_decode('
			  . bytes($text)
			  . ")::jsonb #>> '{$path}', 'none')"),
		$expected,
		"decode: $name");
}

create_functions('postgres');

# --- cutting

cut_is('[]', '', 'no elements');
cut_is(" [ \n] ", '', 'no elements, spaces');
cut_is(qq([{"$key":"a"}]), qq({"$key":"a"}|id=a), 'one element');
cut_is(
	qq( [ {"$key" : "a" } ,\t{"x":{"$key":"inner"},"$key":"b"}\n] ),
	qq({"$key" : "a" }|id=a\n{"x":{"$key":"inner"},"$key":"b"}|id=b),
	'spaces, and a key of an inner object');
cut_is(
	qq([{"x":"$key","y":["]}","\\"},{"]}]),
	qq({"x":"$key","y":["]}","\\"},{"]}),
	'brackets in strings, the key as a value');
cut_is(qq([{"$key":"a","$key":"b"}]),
	qq({"$key":"a","$key":"b"}|id=b), 'the last of two ids');
cut_is(qq([{"$key":"a","$key":1}]),
	qq({"$key":"a","$key":1}), 'the last of two ids is no string');
cut_is(qq([{"$key":"a\\u0041"}]),
	qq({"$key":"a\\u0041"}), 'an id with an escape is not told');
cut_is(
	qq([{"$key":"a","account\\u0041ctivityItemId":"b"}]),
	qq({"$key":"a","account\\u0041ctivityItemId":"b"}),
	'an id is not told beside an escaped key');
cut_is(qq([{"a":"\\u0000","b":"\\\\u0000","c":"\\\\\\u0000"}]),
	qq({"a":"\\ufffd","b":"\\\\u0000","c":"\\\\\\ufffd"}|2),
	'U+0000 is replaced, an escaped backslash is not');
cut_is(
	qq([{"\\uD800":"\\udc00\\ud83d\\ude00\\ud83dx\\ud83d\\u0000"}]),
	qq({"\\ufffd":"\\ufffd\\ud83d\\ude00\\ufffdx\\ufffd\\ufffd"}|5),
	'lone surrogates are replaced, pairs are not');
cut_is(qq([{"a":"\\u00zz"},1,"x",[2],,{}]),
	qq({"a":"\\u00zz"}\n1|not a JSON object\n"x"|not a JSON object\n[2]|not a JSON object\n|an element of the page is empty\n{}),
	'what is no object fails alone');
cut_is('[{"a":1}} ]', 'error: brackets do not match', 'brackets');
cut_is('[{"a":1}', 'error: the array is cut short', 'truncated');
cut_is('[{"a":"1}]', 'error: the array is cut short', 'open string');
cut_is('[{"a":"\\', 'error: the array is cut short', 'ends in an escape');
cut_is('', 'error: the page is empty', 'nothing');
cut_is('<html>', 'error: the page is not a JSON array', 'HTML');
cut_is('{"a":[]}', 'error: the page is not a JSON array', 'an object');
cut_is('[{}] x', 'error: something follows the JSON array', 'garbage');
cut_is('[' . ('[' x 101) . (']' x 101) . ']', ('[' x 101) . (']' x 101)
	  . '|not a JSON object', 'deep, no object');
is( answer(
		"SELECT string_agg(coalesce(problem, 'fine'), ',') FROM unit_cut("
		  . bytes(
			'[{"a":"' . "\xc3\xa9" . '"},{"a":'
			  . ('[' x 99) . (']' x 99) . '},{"a":'
			  . ('[' x 100) . (']' x 100) . '}]')
		  . ", 'a')"),
	'fine,fine,nested too deeply',
	'cut: depth');
# without its text, which is not text
is( answer(
		"SELECT string_agg(coalesce(problem, id), ',') FROM (SELECT (c).problem, (c).id FROM (SELECT unit_cut("
		  . bytes(qq([{"$key":"a"},{"$key":"\xff"},{"$key":"\0"},{"$key":"c"}]))
		  . ", '$key') c OFFSET 0) s) t"),
	'a,not valid UTF-8, or has a NUL byte,not valid UTF-8, or has a NUL byte,c',
	'cut: bad UTF-8 fails alone');
is( answer(
		"SELECT count(*) FROM unit_cut(convert_to('[' || repeat('1,', 100000) || '1]', 'UTF8'), 'a')"
	),
	'error: the array has too many elements',
	'cut: too many elements');
is( answer(
		"SELECT count(*), count(id), count(problem), bool_and(unit_decode(convert_to(item, 'UTF8'))::jsonb ->> 'account_activity_item_id' = id) FROM unit_cut($items, '$key')"
	),
	'6|6|0|t',
	'cut: the samples');

# --- parsing

parse_is(' {"a" : [1,-2.5,true,false,null,"x"] }',
	'{"a":[1,-2.5,true,false,null,"x"]}', 'all types');
# all that cJSON allocates has to be counted, whatever the number of each
is(answer(<<SQL), "", "parse: $_->[0] of many lengths") for (
SELECT string_agg(n::text, ' ') FROM generate_series(0, 3000) n,
	LATERAL (SELECT convert_to('[' || $_->[1] || ']', 'UTF8') AS t) x
WHERE length(unit_parse(t)) < n
SQL
	[ 'numbers', q{rtrim(repeat('1,', n), ',')} ],
	[ 'strings', q{rtrim(repeat('"",', n), ',')} ],
	[ 'long numbers', q{rtrim(repeat('-1234567.25e3,', n), ',')} ],
	[ 'mixtures', q{rtrim(repeat('{"a":1,"":"b"},[2,"c"],', n / 4 + 1), ',')} ]);
parse_is($_->[0], "error: $_->[1]", $_->[2])
  for (
	[ '', 'ends too early', 'nothing' ],
	[ '  ', 'ends too early', 'spaces' ],
	[ '{"a":1', 'ends too early', 'open object' ],
	[ '[1,', 'ends too early', 'open array' ],
	[ '"a', 'a string has no end', 'open string' ],
	[ '"a\\', 'a string has no end', 'open escape' ],
	[ '{} {}', 'something follows the JSON value', 'two values' ],
	[ '{"a":1,}', 'a key is missing', 'trailing comma in an object' ],
	[ '[1,]', 'a value is missing', 'trailing comma in an array' ],
	[ '{"a"}', 'a colon is missing', 'no colon' ],
	[ '{1:2}', 'a key is missing', 'a number as key' ],
	[ '[1 2]', 'a comma or bracket is missing', 'no comma' ],
	[ '[1}', 'a comma or bracket is missing', 'wrong bracket' ],
	[ '[01]', 'a number is not valid', 'leading zero' ],
	[ '[-]', 'a number is not valid', 'a sign alone' ],
	[ '[1.]', 'a number is not valid', 'no digit after the point' ],
	[ '[-.5]', 'a number is not valid', 'no digit before the point' ],
	[ '[.5]', 'a value is missing', 'a point first' ],
	[ '[+1]', 'a value is missing', 'a plus' ],
	[ '[1e]', 'a number is not valid', 'no exponent' ],
	[ '[0x1]', 'a comma or bracket is missing', 'hex' ],
	[ '[1e99999]', 'a number is out of range', 'numeric would overflow' ],
	[ '[' . ('1' x 64) . ']', 'a number is too long', 'a long number' ],
	[ '[nul]', 'a literal is not valid', 'half a literal' ],
	[ '[nullx]', 'a comma or bracket is missing', 'more than a literal' ],
	[ '[True]', 'a value is missing', 'capitals' ],
	[ '[NaN]', 'a value is missing', 'NaN' ],
	[ "[\"a\tb\"]", 'a string has a control character', 'a tab' ],
	[ "[\"abcdefghijklmnopqrstuvwxyz\x01\"]",
		'a string has a control character', 'a late control character' ],
	[ "[1,\f2]", 'a value is missing', 'form feed as white space' ],
	[ '["\\x"]', 'an escape is not valid', 'unknown escape' ],
	[ '["\\u12G4"]', 'an escape is not valid', 'not hex' ],
	[ '["\\u12"]', 'an escape is not valid', 'short' ],
	[ '["\\u0000"]', 'has U+0000 or half a surrogate pair', 'U+0000' ],
	[ '["\\ud800"]', 'has U+0000 or half a surrogate pair', 'half a pair' ],
	[ "\xef\xbb\xbf{}", 'a value is missing', 'byte order mark' ],
	[ "[\"\xff\"]", 'not valid UTF-8, or has a NUL byte', 'UTF-8' ],
	[ "[\"\xed\xa0\x80\"]", 'not valid UTF-8, or has a NUL byte',
		'a surrogate in UTF-8' ],
	[ "[1]\0", 'not valid UTF-8, or has a NUL byte', 'a NUL byte' ],
	[ ('[' x 101) . (']' x 101), 'nested too deeply', 'depth 101' ],
  );
parse_is(('[' x 100) . (']' x 100), ('[' x 100) . (']' x 100), 'depth 100');
parse_is('["\\u00e9\\ud83d\\ude00\\/\\u001f\\n"]', "[\"é😀/\\u001f\\n\"]",
	'escapes');
is( answer('SELECT unit_get(' . bytes('{"a":1,"A":2,"a":3}') . ", 'a')"),
	'3', 'get: the last one, by case');
is(answer('SELECT unit_get(' . bytes('{"a":1}') . ", 'b') IS NULL"),
	't', 'get: none');
for (
	[ '9007199254740991', '9007199254740991' ],
	[ '-9007199254740991', '-9007199254740991' ],
	[ '9007199254740992', 'none' ], [ '9007199254740993', 'none' ],
	[ '1e300', 'none' ], [ '1e999', 'none' ], [ '1.5', 'none' ],
	[ '"1"', 'none' ], [ '2e3', '2000' ], [ '2843118224', '2843118224' ])
{
	is( answer(
			'SELECT coalesce(unit_get_int('
			  . bytes("{\"n\":$_->[0]}")
			  . ", 'n')::text, 'none')"),
		$_->[1],
		"int64: $_->[0]");
}

# --- dates

time_is(@$_)
  for (
	[ '2025-03-04T05:06:07Z', '2025-03-04 05:06:07+00' ],
	[ '2025-03-04T05:06:07.089Z', '2025-03-04 05:06:07.089+00' ],
	[ '2025-03-04T05:06:07.089012Z', '2025-03-04 05:06:07.089012+00' ],
	[ '2025-03-04T05:06:07.0890125Z', '2025-03-04 05:06:07.089013+00' ],
	[ '2025-03-04T05:06:07.999999500Z', '2025-03-04 05:06:08+00' ],
	[ '2025-03-04T05:06:07.1234567890Z', 'none' ],
	[ '2025-03-04T05:06:07.Z', 'none' ],
	[ '2025-03-04T05:06Z', '2025-03-04 05:06:00+00' ],
	[ '2025-03-04T05:06', '2025-03-04 05:06:00+00' ],
	[ '2025-03-04 05:06:07', '2025-03-04 05:06:07+00' ],
	[ '2025-03-04', '2025-03-04 00:00:00+00' ],
	[ '2025-03-04T05', 'none' ],
	[ '2025-03-04T', 'none' ],
	[ '2025-03-04T05:06:07+02:30', '2025-03-04 02:36:07+00' ],
	[ '2025-03-04T05:06:07-0230', '2025-03-04 07:36:07+00' ],
	[ '2025-03-04T05:06:07+14', '2025-03-03 15:06:07+00' ],
	[ '2025-03-04T05:06:07+16', 'none' ],
	[ '2025-03-04T05:06:07+02:60', 'none' ],
	[ '2025-03-04T05:06:07+02:', 'none' ],
	[ '2025-03-04T05:06:07+2', 'none' ],
	[ '2025-03-04T05:06:07Zx', 'none' ],
	[ '2025-03-04T05:06:07 Z', 'none' ],
	[ '2016-12-31T23:59:60Z', '2017-01-01 00:00:00+00' ],
	[ '2016-12-31T23:59:61Z', 'none' ],
	[ '2016-12-31T23:60:00Z', 'none' ],
	[ '2016-12-31T24:00:00Z', '2017-01-01 00:00:00+00' ],
	[ '2016-12-31T24:00:01Z', 'none' ],
	[ '2025-13-04T05:06:07Z', 'none' ],
	[ '2025-00-04', 'none' ],
	[ '2025-02-29', 'none' ],
	[ '2024-02-29', '2024-02-29 00:00:00+00' ],
	[ '1900-02-29', 'none' ],
	[ '2000-02-29', '2000-02-29 00:00:00+00' ],
	[ '2025-04-31', 'none' ],
	[ '2025-04-00', 'none' ],
	[ '0000-01-01', 'none' ],
	[ '0001-01-01T00:00:00Z', '0001-01-01 00:00:00+00' ],
	[ '9999-12-31T23:59:59.999999Z', '9999-12-31 23:59:59.999999+00' ],
	[ '10000-01-01', 'none' ],
	[ '', 'none' ],
	[ 'tomorrow', 'none' ],
	[ '20250304', 'none' ],
	[ '2025-3-4', 'none' ],
  );

# every day of some years, every offset, against the server's own reader
is( answer(
		q(SELECT count(*), count(*) FILTER (WHERE unit_time(s) IS DISTINCT FROM s::timestamptz)
		  FROM (SELECT to_char(d, 'YYYY-MM-DD"T"HH24:MI:SS.US') || to_char(o, 'SG00') || z AS s
				FROM unnest('{0001,1582,1899,1970,1999,2000,2024,2100,9998}'::int[]) y,
					 generate_series(make_timestamp(y, 1, 1, 0, 0, 0), make_timestamp(y, 12, 31, 23, 0, 0), '13:17:19.000001') d,
					 generate_series(-15, 15, 5) o, unnest('{"",00,":45"}'::text[]) z) s)
	) =~ /^(\d+)\|0$/ && $1 > 100000,
	1,
	"time: as the server's own reader");

# --- decoding

is( answer(
		"SELECT unit_decode(" . bytes($_->[0]) . ")"),
	"error: $_->[1]",
	"decode: $_->[1]")
  for (
	[ '[]', 'not a JSON object' ],
	[ '{}', "has no $key" ],
	[ qq({"$key":""}), "has no $key" ],
	[ qq({"$key":["a"]}), "has no $key" ],
	[ qq({"$key":"a","$key":null}), "has no $key" ],
	[ qq({"$key":") . ('x' x 257) . '"}', "$key is too long" ],
	[ qq({"$key":"a","state":") . ('x' x 257) . '"}', 'state is too long' ],
	[ qq({"$key":"a",}), 'a key is missing' ],
  );
is( answer("SELECT unit_decode(" . bytes(qq({"$key":"a"})) . ')'),
	'{"account_activity_item_id":"a","approvals":[],"phases":[],"work_items":[]}',
	'decode: all absent');

field_is(@$_)
  for (
	[ '"state":"X","state":"Y"', 'state', 'Y', 'the last of two states' ],
	[ '"state":7', 'state', 'none', 'a state that is no text' ],
	[ '"id":7', 'item_id', '7', 'a number as id' ],
	[ '"created":7', 'created', 'none', 'a date that is no text' ],
	[ '"cancelable":"true"', 'cancelable', 'none', 'a boolean as text' ],
	[ '"cancelable":false', 'cancelable', 'false', 'a boolean' ],
	[ '"requestedFor":[{"id":"1"},{"id":"2"}]', 'requested_for,id', '1',
		'an array of people' ],
	[ '"requestedFor":[]', 'requested_for', 'none', 'an array of nobody' ],
	[ '"requestedFor":"x"', 'requested_for', 'none', 'a person as text' ],
	[ '"requesterComment":"x"', 'requester_comment', 'x', 'a comment as text' ],
	[ '"requesterComment":{"comment":"x"}', 'requester_comment', 'x', 'a comment' ],
	[ '"cancelledRequestDetails":{"comment":"c","owner":{"id":"o"},"modified":"2025-01-02T03:04Z"}',
		'cancelled_at', '2025-01-02 03:04:00+00', 'when cancelled' ],
	[ '"sodViolationContext":{"state":"S"}', 'sod_policies', 'none', 'no check' ],
	[ '"sodViolationContext":{"violationCheckResult":{}}', 'sod_policies', '[]',
		'a check without findings' ],
	[ '"sodViolationContext":{"violationCheckResult":{"violatedPolicies":[{"name":"p"},{"name":1},null,{"name":"q"}]}}',
		'sod_policies', '["p", "q"]', 'policies' ],
	[ '"requestedAccounts":[]', 'source_names', '[]', 'no accounts' ],
	[ '"requestedAccounts":null', 'source_names', 'none', 'null accounts' ],
	[ '"requestedAccounts":[{"sourceName":"s"},{"sourceName":"t"},{"sourceName":"s"}]',
		'source_names', '["s", "t"]', 'distinct sources' ],
	[ '"clientMetadata":{"a":"b"}', 'client_metadata', '{"a": "b"}', 'metadata' ],
	[ '"clientMetadata":"x"', 'client_metadata', 'none', 'metadata as text' ],
	[ '"errorMessages":[[{"locale":"de","text":"d"},{"locale":"en-US","text":"e"}],[{"locale":"de","text":"f"}],[{"locale":"en","text":"e"}]]',
		'error_text', 'e; f', 'messages' ],
	[ '"errorMessages":[{"locale":"de","text":"d"},{"locale":"en","text":"e"},{"locale":"en","text":"g"}]',
		'error_text', 'e; g', 'flat messages' ],
	[ '"errorMessages":[{"text":"d"},{"text":"e"}]', 'error_text', 'd; e',
		'messages without locale' ],
	[ '"errorMessages":["x",["y"],[],{},[{}],null,1,"x"]', 'error_text', 'x; y',
		'messages as texts' ],
	[ '"errorMessages":"x"', 'error_text', 'x', 'a message as text' ],
	[ '"errorMessages":[]', 'error_text', 'none', 'no messages' ],
	[ '"approvalDetails":[{},{"approvalId":"q"}],"approvalIds":["x","y"]',
		'approvals,0,approval_id', 'x', 'an approval id by position' ],
	[ '"approvalDetails":[{},{"approvalId":"q"}],"approvalIds":["x","y"]',
		'approvals,1,approval_id', 'q', 'its own approval id' ],
	[ '"approvalDetails":[null,{}],"approvalIds":["x","y"]',
		'approvals,0,approval_id', 'y', 'a position beside a null' ],
	[ '"approvalDetails":[{}],"approvalIds":["x","y"]',
		'approvals,0,approval_id', 'none', 'lengths differ' ],
	[ '"approvalDetails":{"status":"X"}', 'approvals', '[]', 'no array' ],
	[ '"approvalDetails":[{"approverComments":[{"comment":"new","created":"2025-01-02"},{"comment":"old","created":"2025-01-01"}]}]',
		'approvals,0,comment', 'new', 'the newest comment' ],
	[ '"approvalDetails":[{"comment":null,"approverComments":["a","b"]}]',
		'approvals,0,comment', 'b', 'the last comment' ],
	[ '"approvalDetails":[{"timeoutConfig":{"n":5}}]',
		'approvals,0,timeout_config', '{"n": 5}', 'timeout' ],
	[ '"accessRequestPhases":[1,{"name":"P","started":"2025-01-02T03:04:05.000006Z"}]',
		'phases,0,started', '2025-01-02 03:04:05.000006+00', 'a phase' ],
	[ '"manualWorkItemDetails":[{"forwarded":true,"currentOwner":{"type":"GOVERNANCE_GROUP"}}]',
		'work_items,0,current_owner,type', 'GOVERNANCE_GROUP', 'a work item' ],
  );

# the rich samples, each field against SQL that reads the same JSON
is( answer(
		qq(SELECT count(*) FROM unit_cut($items, '$key') c,
			LATERAL (SELECT item::jsonb j, unit_decode(convert_to(item, 'UTF8'))::jsonb d) s
		 WHERE (d ->> 'state', d ->> 'item_name', d #>> '{requester,id}', d ->> 'request_type',
				d ->> 'access_request_id', (d ->> 'created')::timestamptz, d -> 'client_metadata',
				(d ->> 'cancelable')::bool, jsonb_array_length(d -> 'approvals'),
				jsonb_array_length(d -> 'phases'))
			IS DISTINCT FROM
			   (j ->> 'state', j ->> 'name', j #>> '{requester,id}', j ->> 'requestType',
				j ->> 'accessRequestId', (j ->> 'created')::timestamptz, j -> 'clientMetadata',
				(j ->> 'cancelable')::bool, jsonb_array_length(j -> 'approvalDetails'),
				jsonb_array_length(j -> 'accessRequestPhases')))),
	'0',
	'decode: the samples');

# --- damaged items

for my $round (1 .. $rounds)
{
	my $s = $seed + $round - 1;
	my $counts =
	  answer("SELECT accepted, decoded, replaced, pages_cut, growth FROM unit_fuzz($items, $s, $texts)");
	my ($accepted, $decoded, $replaced, $cut, $growth) =
	  split /\|/, $counts;

	ok( $counts =~ /^\d+\|/
		  && $accepted > $texts / 10
		  && $decoded > 0
		  && $replaced > 0
		  && $cut > 0
		  && $growth < 1024,
		"damaged items, seed $s") or diag($counts);
}

# --- other encodings: our functions speak UTF-8 whatever the server's is

for my $encoding ('LATIN1', 'SQL_ASCII')
{
	my $db = lc($encoding);

	$node->safe_psql('postgres',
		"CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding'");
	create_functions($db);
	is( answer(
			'SELECT count(*) FROM unit_cut('
			  . bytes("[{\"$key\":\"\xc3\xa9\"},{\"$key\":\"\xe9\"}]")
			  . ", '$key') WHERE problem IS NULL",
			$db),
		'1',
		"$encoding: UTF-8 is verified as such");
}

note("measured, microseconds an item of 2.5 KB:\n"
	  . answer(
		"SELECT format('%s %s', part, us::numeric(8,2)) FROM unit_bench($items, 50)"));

$node->stop;
done_testing();
