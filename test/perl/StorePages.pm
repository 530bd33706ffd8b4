# Pages for store.c without a network, from SQL, through the module of
# test/bench: what 020_store.pl and 021_altered_tables.pl share.

package StorePages;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
  store_node prepare_database tables_sql columns_sql item approvals page_sql
);

my $bench = "$FindBin::RealBin/../bench";
my $build;    # where the module and the tables' script are

# A running server; the module is built on the way.
sub store_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$build = PostgreSQL::Test::Utils::tempdir();
	system_or_bail("$bench/store.sh", '--build', $build);
	$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', "autovacuum = off");
	$node->start;
	return $node;
}

# The part of the extension's script that makes its schema and tables.
sub tables_sql { return slurp_file("$build/tables.sql"); }

# CREATE TABLE of one of them, for something like PARTITION BY to follow.
sub columns_sql
{
	my ($table) = @_;

	tables_sql() =~ /(CREATE TABLE accessreq\.$table \(.*?\n\));/s
	  or die "no table $table";
	return $1;
}

# Put the tables and the bench's functions into a database.
sub prepare_database
{
	my ($node, $db) = @_;

	$node->safe_psql($db, tables_sql());
	$node->command_ok(
		[
			'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-v', "module=$build/store_bench",
			'-d', $node->connstr($db), '-f', "$bench/store.sql"
		],
		"functions in $db");
	return;
}

# An item; the other keys are given as JSON.
sub item
{
	my ($id, $state, $more) = @_;

	$more = defined $more ? ",$more" : '';
	return qq({"accountActivityItemId":"$id","accessRequestId":"r$id","state":"$state"$more});
}

sub approvals
{
	return '"approvalDetails":['
	  . join(',', map { qq({"approvalId":"a$_->[0]","status":"$_->[1]"}) } @_) . ']';
}

# SQL that stores a page; times are seconds from a fixed point.
sub page_sql
{
	my ($time, $items, %opt) = @_;
	my $page = ref $items ? '[' . join(',', @$items) . ']' : $items;
	my $lock = $opt{nolock} ? 'false' : 'true';
	my $raw = $opt{noraw} ? 'false' : 'true';
	my $columns = $opt{columns} // 'seen, added, changed, quarantined, replaced';
	my $bytes = unpack('H*', $page);

	return "SELECT $columns FROM bench.page('acme', '\\x$bytes'::bytea, "
	  . "timestamptz '2026-01-01Z' + $time * interval '1 s', $raw, $lock)";
}

1;
