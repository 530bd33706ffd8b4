# Measures for cancel.sh, which says what and how to start it.

use strict;
use warnings;

use AccessReq;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = shift || 20;
my $node;
my $admin;
my $conf = "accessreq.request_timeout = 5min\naccessreq.connect_timeout = 5min\n";
my %static = (mapping => { access_token => 'a.b.c' });

sub print_row
{
	my ($phase, $how, @ms) = @_;
	@ms = sort { $a <=> $b } @ms;

	diag(sprintf '%-12s %-18s %8.1f %8.1f %8.1f', $phase, $how, $ms[0], $ms[ @ms / 2 ], $ms[-1]);
	return;
}

# ms from the signal, which is sent from here, to the error in the client
sub measure
{
	my ($name, $peer, $word) = @_;
	my $sql = "SELECT accessreq.count_status(server => '$name')";
	my $session = new_session($node);
	my %ms;

	for my $signal ('INT', 'TERM')
	{
		for (1 .. ($signal eq 'INT' ? $rounds : $rounds / 4))
		{
			my $s = $signal eq 'INT' ? $session : new_session($node);
			my $seen = $peer ? $peer->($word) : 0;

			$s->send($sql);
			poll_until($name, sub { $peer->($word) > $seen }) if $peer;
			backend_waits($admin, $s->backend);
			$s->{sent} = time;
			kill $signal, $s->backend;
			push @{ $ms{$signal} }, $s->finish->{ms};
			$s->quit if $signal eq 'TERM';
		}
	}
	$session->value("SET statement_timeout = '200ms'");
	push @{ $ms{timeout} }, $session->run($sql)->{ms} - 200 for 1 .. $rounds / 4;
	$session->quit;
	print_row($name, 'cancel', @{ $ms{INT} });
	print_row($name, 'terminate', @{ $ms{TERM} });
	print_row($name, 'statement_timeout', @{ $ms{timeout} });
	return;
}

sub counted { my ($listener) = @_; return sub { my @n = $listener->noted($_[0]); return scalar @n } }

sub request_then
{
	my ($bytes) = @_;

	return new_listener(
		sub {
			my ($socket, $n, $note) = @_;
			read_request($socket) // return;
			syswrite($socket, $bytes);
			$note->('request');
			sleep 60;
		});
}

diag(sprintf '%-12s %-18s %8s %8s %8s', 'phase', 'by', 'min', 'median', 'max');
my $dns_node = accessreq_node('dns', start => 0, conf => $conf);
my ($started, $dns_pid, $why) = start_with_stuck_dns($dns_node);
if ($started)
{
	$dns_node->_update_pid(1);
	$dns_node->safe_psql('postgres', 'CREATE EXTENSION accessreq');
	$node = $dns_node;
	$admin = new_session($node);
	add_server($node, 'dns', 'https://hung.example', %static);
	measure('dns', \&dns_questions);
	$admin->quit;
	$node->stop;
	kill 'TERM', $dns_pid;
}
else
{
	diag("no namespace for the phase dns: $why");
}

$node = accessreq_node('bench', conf => $conf);
$admin = new_session($node);
my ($port, $hold) = full_backlog();
if ($port)
{
	add_server($node, 'connect', "http://127.0.0.1:$port", %static);
	measure('connect');
}
my $mute = new_listener(sub { sleep 60 });
add_server($node, 'tls', 'https://127.0.0.1:' . $mute->port, %static);
measure('tls', counted($mute), 'accepted');
my $headers = request_then('');
add_server($node, 'token', $headers->url);
measure('token', counted($headers), 'request');
add_server($node, 'headers', $headers->url, %static);
measure('headers', counted($headers), 'request');
my $body = request_then("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{");
add_server($node, 'body', $body->url, %static);
measure('body', counted($body), 'request');
add_server($node, 'budget', $headers->url, %static, options => { rate_limit => 1 });
my $first = new_session($node);
$first->run("SET statement_timeout = '100ms'; SELECT accessreq.count_status(server => 'budget')");
measure('budget');
$admin->quit;
$node->stop;
ok(1, 'measured');
done_testing();
