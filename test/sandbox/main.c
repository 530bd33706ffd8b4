/*
 * main.c
 *
 * accessreq-sandbox: a tenant of SailPoint Identity Security Cloud, as far as
 * access requests go, on the loopback interface.  Options, and the life of
 * the process.
 */
#include "sandbox.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile int stop;
static bool die_with_parent;

static const char help[] =
"accessreq-sandbox: a make-believe tenant of SailPoint's Access Requests API.\n"
"\n"
"usage: accessreq-sandbox [options]\n"
"\n"
"It listens on 127.0.0.1 only; the first line it prints is its base_url. Any\n"
"client_id is accepted together with the secret. Stop it with Ctrl-C.\n"
"\n"
"  --port PORT            port to listen on; 0 picks a free one (default 0)\n"
"  --rows N               status rows to begin with (default 1000)\n"
"  --seed S               the same seed gives the same rows (default 1)\n"
"  --open PERCENT         share of rows still open (default 8)\n"
"  --moving N             further rows that are on their way now (default 0)\n"
"  --reference DATE|now   newest 'created' of the rows (default 2026-06-30T00:00:00Z)\n"
"  --latency MS           wait before each answer (default 0)\n"
"  --rate N               requests let through in 10 s for a client and an API\n"
"                         version; 0 = no limit (default 100)\n"
"  --pace MS              how long a step of a request takes, such as one approval;\n"
"                         0 = steps are taken by /_sandbox/advance alone (default 3000)\n"
"  --token-ttl SECONDS    life of an access token (default 749)\n"
"  --client-secret TEXT   (default sandbox-secret)\n"
"  --access-token TEXT    a bearer token that is accepted as it is\n"
"  --nulls first|last     where a null 'modified' is sorted (default: last when\n"
"                         ascending, first when descending)\n"
"  --dates both|bare|quoted|neither\n"
"                         which date literals filters take; others match nothing\n"
"                         (default both)\n"
"  --refuse-dates         those that they do not take are refused\n"
"  --collation bytes|natural  how ids are sorted: natural disregards case and dashes,\n"
"                         which filters do not, and gives some ids capitals\n"
"                         (default bytes)\n"
"  --gzip                 compress answers for clients that accept it\n"
"  --tls-cert FILE        certificate (PEM); with --tls-key FILE: https\n"
"  --die-with-parent      end when the process that started it ends\n"
"  --help                 this text\n"
"\n"
"A client_id may ask for a kind of token by a word in it: 'nouser' (no user behind\n"
"it: every call is refused), 'self' (sees only its own requests), 'othertenant',\n"
"'oldtenant' (beta answers a create with {}).\n"
"\n"
"Faults, changes and what was asked: /_sandbox/, see README.md.\n";

static void
on_signal(int sig)
{
	(void) sig;
	stop = 1;
}

static void
fail(const char *what, const char *value)
{
	fprintf(stderr, "accessreq-sandbox: %s: %s\nTry --help.\n", what, value ? value : "(nothing)");
	exit(2);
}

static long
number(const char *name, const char *s, long min, long max)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(s, &end, 10);
	if (errno || end == s || *end || n < min || n > max)
		fail(name, s);
	return n;
}

static double
decimal(const char *name, const char *s, double min, double max)
{
	char	   *end;
	double		d = strtod(s, &end);

	if (end == s || *end || !(d >= min && d <= max))
		fail(name, s);
	return d;
}

static int
one_of(const char *name, const char *s, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (strcmp(words[i], s) == 0)
			return i;
	fail(name, s);
	return 0;
}

enum
{
	OPT_PORT = 256, OPT_ROWS, OPT_SEED, OPT_OPEN, OPT_MOVING, OPT_REFERENCE, OPT_LATENCY, OPT_RATE,
	OPT_PACE, OPT_TTL, OPT_SECRET, OPT_TOKEN, OPT_NULLS, OPT_DATES, OPT_REFUSE_DATES, OPT_COLLATION, OPT_GZIP, OPT_CERT, OPT_KEY,
	OPT_DIE, OPT_HELP
};

static const struct option long_options[] = {
	{"port", required_argument, NULL, OPT_PORT},
	{"rows", required_argument, NULL, OPT_ROWS},
	{"seed", required_argument, NULL, OPT_SEED},
	{"open", required_argument, NULL, OPT_OPEN},
	{"moving", required_argument, NULL, OPT_MOVING},
	{"reference", required_argument, NULL, OPT_REFERENCE},
	{"latency", required_argument, NULL, OPT_LATENCY},
	{"rate", required_argument, NULL, OPT_RATE},
	{"pace", required_argument, NULL, OPT_PACE},
	{"token-ttl", required_argument, NULL, OPT_TTL},
	{"client-secret", required_argument, NULL, OPT_SECRET},
	{"access-token", required_argument, NULL, OPT_TOKEN},
	{"nulls", required_argument, NULL, OPT_NULLS},
	{"dates", required_argument, NULL, OPT_DATES},
	{"refuse-dates", no_argument, NULL, OPT_REFUSE_DATES},
	{"collation", required_argument, NULL, OPT_COLLATION},
	{"gzip", no_argument, NULL, OPT_GZIP},
	{"tls-cert", required_argument, NULL, OPT_CERT},
	{"tls-key", required_argument, NULL, OPT_KEY},
	{"die-with-parent", no_argument, NULL, OPT_DIE},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0}
};

static void
set_reference(const char *s)
{
	options.up_to_now = strcmp(s, "now") == 0;
	options.reference = options.up_to_now ? wall_clock() : date_parse(s, true);
	if (options.reference == NO_TIME)
		fail("--reference", s);
	options.reference -= options.reference % 1000;
}

static void
set_option(int opt, const char *arg)
{
	static const char *const nulls[] = {"largest", "first", "last", NULL};
	static const char *const collations[] = {"bytes", "natural", NULL};

	switch (opt)
	{
		case OPT_PORT:
			options.port = (int) number("--port", arg, 0, 65535);
			break;
		case OPT_ROWS:
			options.rows = number("--rows", arg, 0, 20000000);
			break;
		case OPT_SEED:
			options.seed = (uint64_t) number("--seed", arg, 0, INT32_MAX);
			break;
		case OPT_OPEN:
			options.open_percent = decimal("--open", arg, 0, 100);
			break;
		case OPT_MOVING:
			options.moving = (int) number("--moving", arg, 0, 1000000);
			break;
		case OPT_LATENCY:
			options.latency_ms = (int) number("--latency", arg, 0, 3600000);
			break;
		case OPT_RATE:
			options.rate = (int) number("--rate", arg, 0, 10000000);
			break;
		case OPT_PACE:
			options.pace_ms = (int) number("--pace", arg, 0, 86400000);
			break;
		case OPT_TTL:
			options.token_ttl = (int) number("--token-ttl", arg, 1, 31536000);
			break;
		case OPT_NULLS:
			null_order = (NullOrder) one_of("--nulls", arg, nulls);
			break;
		case OPT_DATES:
			options.dates = one_of("--dates", arg, date_forms);
			break;
		case OPT_REFUSE_DATES:
			options.refuse_dates = true;
			break;
		case OPT_COLLATION:
			options.natural = one_of("--collation", arg, collations) == 1;
			break;
		default:
			exit(2);
	}
}

static void
read_options(int argc, char **argv)
{
	int			opt;

	set_reference("2026-06-30T00:00:00Z");
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1)
	{
		if (opt == OPT_HELP)
		{
			fputs(help, stdout);
			exit(0);
		}
		else if (opt == '?')
			exit(2);
		else if (opt == OPT_SECRET)
			options.client_secret = optarg;
		else if (opt == OPT_TOKEN)
			options.access_token = optarg;
		else if (opt == OPT_GZIP)
			options.gzip = true;
		else if (opt == OPT_DIE)
			die_with_parent = true;
		else if (opt == OPT_CERT)
			options.tls_cert = optarg;
		else if (opt == OPT_KEY)
			options.tls_key = optarg;
		else if (opt == OPT_REFERENCE)
			set_reference(optarg);
		else
			set_option(opt, optarg);
	}
	if (optind < argc)
		fail("unexpected argument", argv[optind]);
	if ((options.tls_cert == NULL) != (options.tls_key == NULL))
		fail("--tls-cert and --tls-key", "both or neither");
}

/* Signals are blocked, and let in only while the server waits. */
static void
catch_signals(void)
{
	struct sigaction sa;
	sigset_t	mask;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	if (die_with_parent)
	{
		pid_t		parent = getppid();

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			stop = 1;
	}
}

int
main(int argc, char **argv)
{
	int			port;

	read_options(argc, argv);
	catch_signals();
	people_init();
	seed_rows(options.rows);
	seed_new(options.moving, true);
	order_by(FIELD_ID, false);
	order_by(FIELD_CREATED, false);
	order_by(FIELD_REQUEST, false);
	port = server_start();
	if (port < 0)
		return 1;
	printf("%s://127.0.0.1:%d\n", options.tls_cert ? "https" : "http", port);
	fflush(stdout);
	server_run(&stop);
	server_stop();
	return 0;
}
