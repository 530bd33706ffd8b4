# A create whose answer was lost, where the tenant's list does not show it, or not
# by a date: what a pull has stored tells as well, while it is looked for and after
# that was given up.  Nothing is sent twice.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('lost', conf => "max_worker_processes = 16\n");
my $sandbox = new_sandbox(rows => 300);
my $admin = new_session($node);
my $n = 0;

sub value { return $admin->value(@_) }
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub posts { return grep { $_->{method} eq 'POST' && $_->{path} =~ m{/access-requests$} } $sandbox->requests }
sub outcome { my ($id) = @_; return value("CALL accessreq.wait_for_action($id, '" . PATIENCE . " s')") }
sub becomes { my ($id, $what, $name) = @_; return ok(poll_until($name, sub { action($id, $what) eq 't' }), $name) || diag(action($id, 'state, error')) }

# One that the tenant carries out, and whose answer is lost.
sub lost_create
{
	my ($what) = @_;

	$sandbox->forget;
	$sandbox->fault('drop_answer', method => 'POST', path => '/access-requests');
	$n++;
	my $id = value("SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b");
	becomes($id, "state = 'unknown'", "$what: its answer is lost");
	$sandbox->admin('POST', 'advance', { ms => 5000 });
	return $id;
}

# What was sent so long ago is looked for once more, and then given up.
sub give_up
{
	my ($id) = @_;

	value("UPDATE accessreq.action SET sent_at = sent_at - interval '1 hour' WHERE id = $id; SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
	is(outcome($id), 'unknown', 'looking is given up');
	return;
}

sub is_found
{
	my ($id, $what) = @_;
	my $token = action($id, 'client_token');
	my ($row) = grep { ref $_->{clientMetadata} eq 'HASH' && ($_->{clientMetadata}{accessreq_client_token} // '') eq $token } @{ $sandbox->dump };

	is(action($id, "state || ' ' || (error IS NULL) || ' ' || (error_code IS NULL)"), 'done true true', "$what: it is done");
	is(action($id, 'access_request_ids[1]'), $row->{accessRequestId}, 'with the request that it made');
	is(action($id, "answer -> 'found'"), qq({"$row->{accessRequestId}": ["$row->{state}"]}), 'and the evidence');
	is(action($id, 'attempts'), '1', 'it was tried once');
	is(scalar(posts()), 1, 'and sent once');
	return;
}

add_server($node, 'acme', $sandbox->url);
add_server($node, 'other', $sandbox->url);
value("CALL accessreq.sync('acme')");

# What the list of the owner's requests shows: nothing; or it is refused.
my %mine = (method => 'GET', path => 'requested-by=me', count => -1);
for my $case ([ 'not in the list', 'garbage', body => '[]', headers => { 'X-Total-Count' => '0' } ], [ 'a list that is refused', 'status', status => 400 ])
{
	my ($what, $kind, %how) = @$case;

	$sandbox->fault($kind, %mine, %how);
	my $id = lost_create($what);
	value("CALL accessreq.sync('acme')");
	is(outcome($id), 'done', "$what: a row that is stored tells");
	is_found($id, $what);
	$sandbox->no_faults;
}

# Later than anybody looks for it.
$sandbox->fault('garbage', %mine, body => '[]', headers => { 'X-Total-Count' => '0' });
my $id = lost_create('given up');
give_up($id);
like(action($id, 'error'), qr/no item has the token \Q@{[action($id, 'client_token')]}\E .*settled as done/, 'and the row says what was tried');
value("CALL accessreq.sync('other')");
is(action($id, 'state'), 'unknown', 'the rows of another server say nothing');
value("UPDATE accessreq.action SET origin = 'elsewhere' WHERE id = $id; CALL accessreq.sync('acme')");
is(action($id, 'state'), 'unknown', 'nor do those of a database it does not belong to');
value("UPDATE accessreq.action SET origin = (SELECT origin FROM accessreq.sync_job WHERE server = 'acme') WHERE id = $id");
value("CALL accessreq.sync('acme')");
is_found($id, 'the next pull');

$id = lost_create('given up, with a dedupe_key');
value("UPDATE accessreq.action SET dedupe_key = 'once' WHERE id = $id");
give_up($id);
my ($row) = grep { ref $_->{clientMetadata} eq 'HASH' && ($_->{clientMetadata}{accessreq_client_token} // '') eq action($id, 'client_token') } @{ $sandbox->dump };
value("SELECT count(*) FROM accessreq.refresh(ARRAY['$row->{accessRequestId}'], 'acme')");
is_found($id, 'refresh()');
is(value("SELECT accessreq.enqueue_create(b, dedupe_key => 'once', server => 'acme') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b"), $id, 'and holds its key');

# Access that is held already is never listed: that stays unknown, whatever is pulled.
$sandbox->forget;
$sandbox->fault('drop_answer', method => 'POST', path => '/access-requests');
$id = value("SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['person'], 'ROLE', 'held-role', 'c') b");
becomes($id, "state = 'unknown'", 'a create that is never listed');
give_up($id);
value("CALL accessreq.sync('acme', full_scan => true)");
is(action($id, 'state'), 'unknown', 'stays unknown');
is(scalar(posts()), 1, 'and is not sent again');

# In a table of some size the token is found by its index.
value(<<'SQL');
INSERT INTO accessreq.request_status (server, account_activity_item_id, client_metadata, content_hash, first_seen_at, changed_at)
SELECT 'big', i::text, CASE WHEN i % 3 = 0 THEN '{"a": "b"}'::jsonb END, 0, now(), now() FROM generate_series(1, 20000) i;
INSERT INTO accessreq.request_status (server, account_activity_item_id, client_metadata, content_hash, first_seen_at, changed_at)
VALUES ('big', 'long', jsonb_build_object('accessreq_client_token', repeat(md5('x') || random()::text, 2000)), 0, now(), now());
ANALYZE accessreq.request_status;
SQL
like(value("EXPLAIN SELECT FROM accessreq.request_status WHERE server = 'acme' AND client_metadata ->> 'accessreq_client_token' = 'x'"), qr/request_status_client_token_idx/, 'the token is found by its index');
is(value("SELECT count(*) FROM accessreq.request_status WHERE account_activity_item_id = 'long'"), '1', 'and one of any length can be stored');

$node->stop;
done_testing();
