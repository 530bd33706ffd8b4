#!/usr/bin/perl
#
# compare.pl: does what a pull stored equal what the tenant has?
#
# Reads the sandbox's dump and the synced tables (what is marked missing apart), decodes each item of the dump
# by the rules that src/item.h and its notes state, and compares value by value.
# It shares no code with the extension: it exists to find what that gets wrong.
#
# Usage: compare.pl SANDBOX_URL CONNINFO SERVER
# Prints the first differences and "N items, M differences"; exits with 1 if
# there is one, with 2 where it could not compare.
#
use strict;
use warnings;
use B ();
use Encode ();
use HTTP::Tiny;
use JSON::PP;

my $MAX_PRINTED = 20;

die "usage: compare.pl SANDBOX_URL CONNINFO SERVER\n" if @ARGV != 3;
my ($url, $conninfo, $server) = @ARGV;
binmode STDOUT, ':utf8';
binmode STDERR, ':utf8';
$SIG{__DIE__} = sub { print STDERR 'compare.pl: ', @_; exit 2 };

my $json = JSON::PP->new->canonical->allow_nonref;

# ---------------------------------------------------------------- differences

my $differences = 0;

sub show
{
	my ($v) = @_;
	return 'NULL' if !defined $v;
	$v =~ s/([\x00-\x1f\x7f])/sprintf '\\x%02x', ord $1/ge;
	return length $v > 300 ? "'" . substr($v, 0, 300) . "…'" : "'$v'";
}

sub differ
{
	my ($where, $expected, $found) = @_;
	printf "%s: the tenant has %s, the table %s\n", $where, show($expected), show($found)
	  if $differences++ < $MAX_PRINTED;
}

sub same
{
	my ($a, $b) = @_;
	return !defined $b if !defined $a;
	return defined $b && $a eq $b;
}

# ------------------------------------------------------------------- the dump

# The texts of the elements of an array, as bytes; undef where it is none.
sub cut_array
{
	my ($text) = @_;
	my ($depth, $start, @items) = (0);

	pos($text) = 0;
	# up to the next bracket or comma that is in no string
	while ($text =~ /\G[^"\[\]{},]*(?:"(?:[^"\\]++|\\.)*+"[^"\[\]{},]*)*/gcs)
	{
		my $at = pos $text;
		last if $at >= length $text;
		my $c = substr $text, $at, 1;
		pos($text) = $at + 1;
		if ($c eq '[' || $c eq '{')
		{
			$start = $at + 1 if ++$depth == 1;
		}
		elsif ($c eq ',' ? $depth == 1 : $c ne '"' && --$depth == 0)
		{
			my $item = substr $text, $start, $at - $start;
			push @items, $item if $item =~ /\S/;
			$start = $at + 1;
		}
		return undef if $c eq '"' || $depth < 0;
	}
	return $depth == 0 ? \@items : undef;
}

# The escapes that PostgreSQL cannot store, replaced: U+0000 and surrogates
# without their other half.
sub clean
{
	my ($text) = @_;
	return $text if $text !~ /\\u(?:0000|[dD][89abAB])|\\u[dD][c-fC-F]/;
	$text =~ s{(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
		|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})
		|(\\.)}{ defined $1 ? $1 : defined $2 ? $2 : '\\ufffd' }gsex;
	return $text;
}

# Trimmed, as characters; undef where the bytes are no UTF-8.
sub text_of_item
{
	my ($bytes) = @_;
	my $text = eval {
		local $SIG{__DIE__};
		Encode::decode('UTF-8', $bytes, Encode::FB_CROAK | Encode::LEAVE_SRC);
	};
	return undef if !defined $text;
	$text =~ s/^\s+|\s+$//g;
	return clean($text);
}

sub parse
{
	my ($text) = @_;
	return eval { local $SIG{__DIE__}; $json->decode($text) };
}

# ------------------------------------------------- values, typed as JSON is

sub is_object { return ref $_[0] eq 'HASH' }
sub is_array  { return ref $_[0] eq 'ARRAY' }

sub is_number
{
	my ($v) = @_;
	return 0 if !defined $v || ref $v;
	my $flags = B::svref_2object(\$v)->FLAGS;
	return ($flags & (B::SVp_IOK | B::SVp_NOK)) && !($flags & B::SVp_POK);
}

sub member { my ($v, $key) = @_; return is_object($v) ? $v->{$key} : undef }

sub text_value
{
	my ($v) = @_;
	return defined $v && !ref $v && !is_number($v) ? "$v" : undef;
}

sub get_text { return text_value(member(@_)) }

# An id that is a whole number counts as text.
sub get_id
{
	my $v = member(@_);
	return "$v" if is_number($v) && "$v" =~ /^-?\d+$/;
	return text_value($v);
}

sub get_bool
{
	my $v = member(@_);
	return undef if !JSON::PP::is_bool($v);
	return $v ? 't' : 'f';
}

sub get_object_json
{
	my $v = member(@_);
	return is_object($v) ? $json->encode($v) : undef;
}

# An array for a while in 2024: then the first.
sub get_ref
{
	my $v = member(@_);
	$v = $v->[0] if is_array($v);
	return (get_text($v, 'type'), get_id($v, 'id'), get_text($v, 'name'));
}

sub get_who
{
	my (undef, $id, $name) = get_ref(@_);
	return ($id, $name);
}

# Days since 1970-01-01 (proleptic Gregorian).
sub days
{
	my ($y, $m, $d) = @_;
	my $a = int((14 - $m) / 12);
	my $yy = $y + 4800 - $a;
	my $mm = $m + 12 * $a - 3;
	return $d + int((153 * $mm + 2) / 5) + 365 * $yy + int($yy / 4) - int($yy / 100) +
	  int($yy / 400) - 32045 - 2440588;
}

sub month_length
{
	my ($y, $m) = @_;
	return 28 + ($y % 4 == 0 && ($y % 100 != 0 || $y % 400 == 0) ? 1 : 0) if $m == 2;
	return $m =~ /^(?:4|6|9|11)$/ ? 30 : 31;
}

# Microseconds since 1970, UTC where no zone is given; undef for what is no date.
sub time_value
{
	my ($text) = @_;
	return undef if !defined $text;
	my ($y, $mo, $d, $h, $mi, $s, $f, $zone) = $text =~
	  /\A(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?)?\z/a
	  or return undef;
	my $offset = 0;

	($h, $mi, $s) = ($h // 0, $mi // 0, $s // 0);
	return undef if $y < 1 || $mo < 1 || $mo > 12 || $d < 1 || $d > month_length($y, $mo + 0);
	return undef if $h > 24 || $mi > 59 || $s > 60 || ($h == 24 && ($mi > 0 || $s > 0));
	if (defined $zone && $zone =~ /^([+-])(\d\d):?(\d\d)?$/)
	{
		return undef if $2 > 15 || ($3 // 0) > 59;    # no zone is that far away
		$offset = ($1 eq '-' ? -1 : 1) * ($2 * 60 + ($3 // 0)) * 60;
	}
	my $usecs = int((substr(($f // 0) . '0' x 9, 0, 9) + 500) / 1000);
	return ((days($y, $mo, $d) * 24 + $h) * 60 + $mi) * 60 * 1000000 + ($s - $offset) * 1000000 +
	  $usecs;
}

sub get_time { return time_value(get_text(@_)) }

sub distinct
{
	my %seen;
	return grep { defined && !$seen{$_}++ } @_;
}

# The text, or the object's "comment".
sub comment_value
{
	my ($v) = @_;
	return is_object($v) ? get_text($v, 'comment') : text_value($v);
}

# One text of a message that is there in several locales: English if it can be.
sub one_text
{
	my @entries = grep { defined get_text($_, 'text') } @_;
	my @english = grep { (get_text($_, 'locale') // '') =~ /^en/i } @entries;
	return (@english, @entries)[0];
}

# errorMessages: a list of messages, each a list of locales; or, of an
# approval, a flat list, of which one locale is shown.
sub error_text
{
	my ($v) = @_;
	return text_value($v) if !is_array($v);
	my $shown = one_text(grep { is_object($_) } @$v);
	my $locale = get_text($shown, 'locale');
	my @texts;
	for my $m (@$v)
	{
		if (is_array($m))
		{
			my $one = one_text(@$m);
			push @texts, defined $one ? get_text($one, 'text') : text_value($m->[0]);
		}
		elsif (is_object($m))
		{
			push @texts, get_text($m, 'text') if same($locale, get_text($m, 'locale'));
		}
		else
		{
			push @texts, text_value($m);
		}
	}
	@texts = distinct(@texts);
	return @texts ? join('; ', @texts) : undef;
}

# The newest of what approvers wrote, the last where they are undated.
sub approver_comment
{
	my ($v) = @_;
	my ($newest, $when);
	return comment_value($v) if !is_array($v);
	for my $c (@$v)
	{
		my $text = comment_value($c);
		my $t = get_time($c, 'modified') // get_time($c, 'created') // get_time($c, 'date');
		next if !defined $text;
		next if defined $when && (!defined $t || $t < $when);
		($newest, $when) = ($text, $t);
	}
	return $newest;
}

sub text_array { return $json->encode([ distinct(@_) ]) }

# ---------------------------------------- the columns, as the tables have them

my @status_columns = qw(
  account_activity_item_id:t access_request_id:t item_id:t item_name:t item_type:t
  request_type:t state:t requester_id:t requester_name:t requested_for_id:t
  requested_for_name:t requester_comment:t created:z modified:z start_date:z remove_date:z
  cancelable:b cancel_comment:t cancelled_at:z cancelled_by_id:t cancelled_by_name:t
  sod_state:t sod_policies:a description:t privilege_level:t source_names:a error_text:t
  client_metadata:j raw:r);

my @approval_columns = qw(
  approval_id:t status:t scheme:t forwarded:b original_owner_type:t original_owner_id:t
  original_owner_name:t current_owner_type:t current_owner_id:t current_owner_name:t
  reviewed_by_id:t reviewed_by_name:t comment:t modified:z remove_date:z timeout_config:j
  error_text:t);

my @phase_columns = qw(name:t state:t result:t started:z finished:z phase_reference:t);

my @work_columns = qw(
  status:t forwarded:b original_owner_type:t original_owner_id:t original_owner_name:t
  current_owner_type:t current_owner_id:t current_owner_name:t modified:z);

sub status_values
{
	my ($i, $text) = @_;
	my $sod = member($i, 'sodViolationContext');
	my $check = member($sod, 'violationCheckResult');
	my $policies = member($check, 'violatedPolicies');
	my $accounts = member($i, 'requestedAccounts');
	my $cancelled = member($i, 'cancelledRequestDetails');
	return (
		get_id($i, 'accountActivityItemId'), get_id($i, 'accessRequestId'), get_id($i, 'id'),
		get_text($i, 'name'), get_text($i, 'type'), get_text($i, 'requestType'),
		get_text($i, 'state'), get_who($i, 'requester'), get_who($i, 'requestedFor'),
		comment_value(member($i, 'requesterComment')),
		get_time($i, 'created'), get_time($i, 'modified'), get_time($i, 'startDate'),
		get_time($i, 'removeDate'), get_bool($i, 'cancelable'),
		comment_value($cancelled), get_time($cancelled, 'modified'), get_who($cancelled, 'owner'),
		get_text($sod, 'state'),
		is_object($check) ?
		  text_array(map { get_text($_, 'name') } is_array($policies) ? @$policies : ()) : undef,
		get_text($i, 'description'), get_text($i, 'privilegeLevel'),
		is_array($accounts) ? text_array(map { get_text($_, 'sourceName') } @$accounts) : undef,
		error_text(member($i, 'errorMessages')), get_object_json($i, 'clientMetadata'), $text);
}

sub objects { my ($v) = @_; return is_array($v) ? grep { is_object($_) } @$v : () }

sub approval_values
{
	my ($i) = @_;
	my $list = member($i, 'approvalDetails');
	my $ids = member($i, 'approvalIds');
	my @rows;
	return () if !is_array($list);
	$ids = undef if !is_array($ids) || @$ids != @$list;
	for my $n (0 .. $#$list)
	{
		my $a = $list->[$n];
		next if !is_object($a);
		push @rows, [
			get_id($a, 'approvalId') // ($ids ? text_value($ids->[$n]) : undef),
			get_text($a, 'status'), get_text($a, 'scheme'), get_bool($a, 'forwarded'),
			get_ref($a, 'originalOwner'), get_ref($a, 'currentOwner'), get_who($a, 'reviewedBy'),
			comment_value(member($a, 'comment')) // approver_comment(member($a, 'approverComments')),
			get_time($a, 'modified'), get_time($a, 'removeDate'),
			get_object_json($a, 'timeoutConfig'), error_text(member($a, 'errorMessages')) ];
	}
	return @rows;
}

sub phase_values
{
	my ($i) = @_;
	return map {
		[ get_text($_, 'name'), get_text($_, 'state'), get_text($_, 'result'),
		  get_time($_, 'started'), get_time($_, 'finished'), get_text($_, 'phaseReference') ]
	} objects(member($i, 'accessRequestPhases'));
}

sub work_values
{
	my ($i) = @_;
	return map {
		[ get_text($_, 'status'), get_bool($_, 'forwarded'), get_ref($_, 'originalOwner'),
		  get_ref($_, 'currentOwner'), get_time($_, 'modified') ]
	} objects(member($i, 'manualWorkItemDetails'));
}

# ----------------------------------------------------------------- the tables

my %as_text = (
	t => '%s',
	b => '%s',
	z => '(extract(epoch from %s) * 1000000)::bigint',
	a => 'to_jsonb(%s)::text',
	j => '%s::text',
	r => '%s::text');

my %unescape = (n => "\n", t => "\t", r => "\r", b => "\b", f => "\f", v => "\013");

# Calls back with the fields of each row, undef for NULL.
sub read_table
{
	my ($table, $order, $columns, $row) = @_;
	my $list = join ', ', map { my ($c, $t) = split /:/; sprintf $as_text{$t}, $c } @$columns;
	(my $literal = $server) =~ s/'/''/g;
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	open my $psql, '-|:encoding(UTF-8)', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $conninfo,
	  '-c', 'SET standard_conforming_strings = on', '-c',
	  "COPY (SELECT $list FROM accessreq.$table t WHERE server = '$literal' AND NOT EXISTS"
	  . " (SELECT FROM accessreq.request_status m WHERE m.server = t.server AND"
	  . " m.account_activity_item_id = t.account_activity_item_id AND m.missing_since IS NOT NULL)"
	  . " ORDER BY $order) TO STDOUT"
	  or die "could not run psql: $!\n";
	while (my $line = <$psql>)
	{
		chomp $line;
		$row->(map { $_ eq '\N' ? undef : s/\\(.)/$unescape{$1} \/\/ $1/ger } split /\t/, $line, -1);
	}
	close $psql or die "psql failed on accessreq.$table\n";
}

# ----------------------------------------------------------------- comparing

sub canonical
{
	my ($text) = @_;
	return undef if !defined $text;
	my $v = parse($text);
	return defined $v ? $json->encode($v) : $text;
}

sub same_value
{
	my ($type, $expected, $found) = @_;
	return 1 if same($expected, $found);
	return 0 if $type !~ /[ajr]/ || !defined $expected || !defined $found;
	return canonical($expected) eq canonical($found);
}

sub compare_row
{
	my ($where, $columns, $expected, $found) = @_;
	die sprintf "%d columns, %d values of the tenant, %d of the table at %s\n", scalar @$columns,
	  scalar @$expected, scalar @$found, $where
	  if @$columns != @$expected || @$columns != @$found;
	for my $n (0 .. $#$columns)
	{
		my ($column, $type) = split /:/, $columns->[$n];
		differ("$where $column", $expected->[$n], $found->[$n])
		  if !same_value($type, $expected->[$n], $found->[$n]);
	}
}

my %tenant;      # id => { status => [], approval => [[]…], … }
my $unreadable = 0;

sub read_dump
{
	my $answer = HTTP::Tiny->new(timeout => 600)->get("$url/_sandbox/dump");
	die "$url/_sandbox/dump: $answer->{status} $answer->{reason}\n" if !$answer->{success};
	my $items = cut_array($answer->{content}) or die "the dump is no JSON array\n";
	delete $answer->{content};
	for my $bytes (@$items)
	{
		my $text = text_of_item($bytes);
		my $item = defined $text ? parse($text) : undef;
		my $id = get_id($item, 'accountActivityItemId');
		if (!defined $id || $id eq '')
		{
			$unreadable++;
			next;
		}
		$tenant{$id} = {
			status => [ status_values($item, $text) ],
			approval => [ approval_values($item) ],
			phase => [ phase_values($item) ],
			manual_work_item => [ work_values($item) ] };
	}
}

sub compare_status
{
	my %found;
	read_table('request_status', 'account_activity_item_id', \@status_columns, sub {
		my $id = $_[0];
		$found{$id} = 1;
		return differ("item $id", undef, 'a row') if !$tenant{$id};
		compare_row("item $id", \@status_columns, $tenant{$id}{status}, \@_);
	});
	differ("item $_", 'it', undef) for grep { !$found{$_} } sort keys %tenant;
}

sub compare_children
{
	my ($table, $columns) = @_;
	my %found;
	read_table($table, 'account_activity_item_id, ordinal',
		[ 'account_activity_item_id:t', 'ordinal:t', @$columns ], sub {
			my ($id, $ordinal, @values) = @_;
			my $expected = $tenant{$id} && $tenant{$id}{$table}[ $ordinal - 1 ];
			$found{$id}++;
			return differ("item $id $table $ordinal", undef, 'a row')
			  if $ordinal < 1 || !$expected;
			compare_row("item $id $table $ordinal", $columns, $expected, \@values);
	});
	for my $id (sort keys %tenant)
	{
		my $expected = @{ $tenant{$id}{$table} };
		differ("item $id number of $table", $expected, $found{$id} // 0)
		  if $expected != ($found{$id} // 0);
	}
}

read_dump();
compare_status();
compare_children('approval', \@approval_columns);
compare_children('phase', \@phase_columns);
compare_children('manual_work_item', \@work_columns);
printf "%d items, %d differences%s\n", scalar keys %tenant, $differences,
  $unreadable ? " ($unreadable items of the tenant cannot be read)" : '';
exit($differences ? 1 : 0);
