# What is read of a server and its mapping is of one moment, and reading ends,
# whatever the catalogs' caches go through; a secret is in one place alone; and
# when words of others repeat one.

use strict;
use warnings;

use AccessReq;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = abs_path(dirname(__FILE__) . '/../unit') . '/accessreq_unit';
my $node = accessreq_node('tenant');
my $functions = <<"SQL";
CREATE FUNCTION unit_tenant(text, bool, text) RETURNS text LANGUAGE c AS '$module';
CREATE FUNCTION unit_memory_copies(bytea) RETURNS int LANGUAGE c STRICT AS '$module';
CREATE FUNCTION unit_redact_repeats(text, text) RETURNS bool LANGUAGE c STRICT AS '$module';
SQL

# --------------------------------------------------- caches that are discarded

$node->safe_psql('postgres', $functions);
my $sandbox = new_sandbox();
add_server($node, 'acme', 'http://127.0.0.1:1', mapping => { client_id => 'c', client_secret => 'old-secret' });
# it cannot be cancelled where it does not end
my $session = new_session($node);
my $first = $session->run("SELECT unit_tenant('acme', true, NULL)");
is($first->{out}, 'http://127.0.0.1:1 old-secret', 'a read amid discarded caches ends') or BAIL_OUT('and hangs for ever');
is($session->value("SELECT string_agg(DISTINCT unit_tenant('acme', true, NULL), ',') FROM generate_series(1, 100)"), 'http://127.0.0.1:1 old-secret', 'each time');
is($session->value("SELECT unit_tenant('acme', false, NULL)"), 'http://127.0.0.1:1 old-secret', 'and without');

# ------------------------------------------ a change between the looks at the two

# never the old URL with the new secret: both of one moment, whichever that is
my $both = "ALTER SERVER acme OPTIONS (SET base_url ''http://127.0.0.1:2''); ALTER USER MAPPING FOR PUBLIC SERVER acme OPTIONS (SET client_secret ''new-secret'')";
for my $discard ('false', 'true')
{
	$session->run('BEGIN');
	like($session->run("SELECT unit_tenant('acme', $discard, '$both')")->{out}, qr{^http://127\.0\.0\.1:(1 old|2 new)-secret$}, "both changed, discarded: $discard");
	is($session->run("SELECT unit_tenant('acme', $discard, NULL)")->{out}, 'http://127.0.0.1:2 new-secret', "and read again, discarded: $discard");
	$session->run('ROLLBACK');
	is($session->run("SELECT unit_tenant('acme', $discard, NULL)")->{out}, 'http://127.0.0.1:1 old-secret', "and back, discarded: $discard");
}
# PUBLIC's mapping gives way to one's own
$session->run('BEGIN');
$session->run("SELECT unit_tenant('acme', false, 'CREATE USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (client_id ''c'', client_secret ''own-secret'')')");
is($session->run("SELECT unit_tenant('acme', false, NULL)")->{out}, 'http://127.0.0.1:1 own-secret', 'a mapping that comes');
$session->run('ROLLBACK');
$session->run('BEGIN');
$session->run("SELECT unit_tenant('acme', false, 'DROP USER MAPPING FOR PUBLIC SERVER acme')");
my $r = $session->run("SELECT unit_tenant('acme', false, NULL)");
is($r->{sqlstate}, '42704', 'a mapping that goes') or diag($r->{err});
$session->run('ROLLBACK');
$session->quit;

# ------------------------------------------------------- a secret in one place

# As PostgreSQL takes an option apart: its name, a NUL, and its value.
my $secret = 'Th3-one-and-only-copy';
add_server($node, 'one', $sandbox->url, mapping => { client_id => 'c', client_secret => 'sandbox-secret', });
add_server($node, 'two', $sandbox->url, mapping => { client_id => 'c', client_secret => $secret });
$session = new_session($node);
my $in_reverse = unpack('H*', reverse "client_secret\0$secret");
is($session->run("SELECT accessreq.count_status(server => 'two')")->{sqlstate}, '28P01', 'a secret is used');
is($session->value("SELECT unit_memory_copies('\\x$in_reverse')"), '0', 'and the list of options that it stood in is gone');
# what is looked for is found
$session->run("SET application_name = 'the needle in the hay'");
isnt($session->value("SELECT unit_memory_copies('\\x" . unpack('H*', reverse 'the needle in the hay') . "')"), '0', 'as a copy would be found');
$session->quit;

# -------------------------------------------------------- words that repeat one

my $token = q{abcdefgh/ijk+lmn=opq&rs"tu};
for ([ 'no, abcdefgh', 't' ], [ 'no, abcdefg', 'f' ], [ 'ijk+lmn=', 't' ], [ 'ijk%2blmn%3d', 't' ], [ 'ijk%2Blmn%3D', 't' ], [ 'ijk%252Blmn%253D', 't' ],
	[ 'opq&amp;rs&quot;tu', 't' ], [ 'opq&#38;rs&#x22;tu', 't' ], [ 'opq&amp;rs\\"tu', 't' ], [ 'h\\/ijk+lm', 't' ], [ 'h\\u002fijk+lm', 't' ], [ 'h\\\\u002fijk+lm', 't' ],
	[ 'opq%26amp%3Brs%22tu', 't' ], [ '', 'f' ], [ '%', 'f' ], [ '%4', 'f' ], [ '&', 'f' ], [ '&#', 'f' ], [ '&#x;', 'f' ], [ '&#99999999999999999999;', 'f' ], [ '\\', 'f' ], [ '\\u', 'f' ], [ '%00abcdefgh', 't' ], [ 'Abcdefgh', 'f' ])
{
	my ($text, $expected) = @$_;

	is($node->safe_psql('postgres', "SELECT unit_redact_repeats(" . quote_sql($text) . ', ' . quote_sql($token) . ')'), $expected, "\"$text\"");
}
is($node->safe_psql('postgres', "SELECT unit_redact_repeats('the 7bytes! are here', '7bytes!'), unit_redact_repeats('7bytes', '7bytes!'), unit_redact_repeats('x', '')"), 't|f|f', 'a short one is looked for as a whole');

$node->stop('immediate');
done_testing();
