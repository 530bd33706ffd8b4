# A libcurl that cannot be interrupted while it waits for a name server is
# refused: when it is compiled against, and when another runs than was compiled
# against; then by each call and by check(), and by nothing that makes no call.

use strict;
use warnings;

use AccessReq;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $source = abs_path(dirname(__FILE__) . '/../..');

# ------------------------------------------------------------------ compiled

chomp(my $includes = `pkg-config --variable=includedir libcurl`);
chomp(my $server = `pg_config --includedir-server`);
my ($curl) = grep { -e "$_/curl/curlver.h" } $includes, glob("$includes/*-linux-gnu");
system("mkdir '$dir/old' && cp -r '$curl/curl' '$dir/old/'") == 0 or die 'no headers of libcurl';
my $compile = sub {
	my $said = `cc -fsyntax-only -I'$_[0]' -I'$source/src' -I'$server' '$source/src/http.c' 2>&1`;
	return $? == 0 ? 'compiles' : $said;
};
is($compile->("$dir/old"), 'compiles', 'with the libcurl that is here');
(my $version = slurp_file("$dir/old/curl/curlver.h")) =~ s/(#define LIBCURL_VERSION_NUM\s+)\S+/${1}0x075600/ or die 'no version in curlver.h';
open(my $f, '>', "$dir/old/curl/curlver.h") or die $!;
print $f $version;
close $f;
like($compile->("$dir/old"), qr/needs libcurl 7\.87\.0 or later/, 'with an older one it does not compile');

# ---------------------------------------------------------------------- run

# What the library says of itself, said otherwise: all the rest is real.
append_to_file("$dir/says.c", <<'C');
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
curl_version_info_data *
curl_version_info(CURLversion age)
{
	static curl_version_info_data said;
	curl_version_info_data *(*real) (CURLversion) = (curl_version_info_data *(*) (CURLversion)) dlsym(RTLD_NEXT, "curl_version_info");

	said = *real(age);
	if (strcmp(getenv("LIBCURL_SAYS"), "old") == 0)
	{
		said.version = "7.86.0";
		said.version_num = 0x075600;
	}
	else if (strcmp(getenv("LIBCURL_SAYS"), "blocking") == 0)
		said.features &= ~CURL_VERSION_ASYNCHDNS;
	return &said;
}
C
system("cc -shared -fPIC -o '$dir/says.so' '$dir/says.c' -Wl,--no-as-needed -lcurl -ldl") == 0 or die 'cc';
my $sandbox = new_sandbox();
my $node = accessreq_node('library', start => 0);
my @reasons = ([ old => qr/libcurl 7\.86\.0 is too old/ ], [ blocking => qr/libcurl \S+ was built without an asynchronous resolver/ ], [ truth => undef ]);

for (@reasons)
{
	my ($says, $like) = @$_;

	{
		local $ENV{LD_PRELOAD} = "$dir/says.so";
		local $ENV{LIBCURL_SAYS} = $says;
		$node->start;
	}
	my $session = new_session($node);
	if ($says eq 'old')
	{
		is($session->run('CREATE EXTENSION accessreq')->{sqlstate}, '', 'a server with an old one starts and loads the extension');
		add_server($node, 'acme', $sandbox->url);
		$session->quit;
		$session = new_session($node);
	}
	is($session->run('SELECT count(*) FROM accessreq.request_status')->{out}, '0', "$says: what makes no call works");
	my $r = $session->run("SELECT accessreq.count_status(server => 'acme')");
	my $check = $session->value("SELECT string_agg(step || ' ' || ok, ', ') FROM accessreq.check('acme') WHERE step IN ('options', 'library', 'dns', 'token')");
	if ($like)
	{
		is($r->{sqlstate}, '0A000', "$says: a call is refused");
		like($r->{err}, $like, "$says: and says why");
		is($check, 'options true, library false', "$says: check() says so, and asks nobody");
		like($session->value("SELECT detail FROM accessreq.check('acme') WHERE step = 'library'"), $like, "$says: why");
		is(scalar($sandbox->requests), 0, "$says: nothing was sent");
	}
	else
	{
		is($r->{out}, '600', 'the truth is good enough');
		is($check, 'options true, library true, dns true, token true', 'and check() says so');
		like($session->value("SELECT detail FROM accessreq.check('acme') WHERE step = 'library'"), qr/^libcurl \d+\.\d+\.\d+.*, /, 'with its version');
	}
	$session->quit;
	$node->stop;
}
done_testing();
