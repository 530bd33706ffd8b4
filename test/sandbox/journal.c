/*
 * journal.c
 *
 * What clients asked, in the order in which it arrived: the tests' witness.
 * Secrets are masked before they are kept.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING 100000
#define MAX_BODY 65536

typedef struct Entry
{
	uint64_t	n;				/* 0: free */
	char	   *method;
	char	   *path;
	char	   *query;
	char	   *client_id;
	char	   *user_agent;
	char	   *body;
	const char *fault;
	Api			api;
	int64_t		arrived;
	int64_t		took_ms;
	int			status;			/* 0 until it is answered */
	bool		delivered;
	unsigned	connection;
} Entry;

static Entry *ring;
static uint64_t last;			/* number of the newest entry */
static uint64_t cleared;		/* number of the newest that was deleted */

static uint64_t total;
static uint64_t by_status[1000];
static uint64_t undelivered;
static uint64_t token_fetches;
static uint64_t accepted;
static uint64_t used;
static int64_t open_now;

static char *
copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void
entry_free(Entry *e)
{
	free(e->method);
	free(e->path);
	free(e->query);
	free(e->client_id);
	free(e->user_agent);
	free(e->body);
	memset(e, 0, sizeof(*e));
}

/* The body as it may be kept: the value of client_secret is not. */
static char *
masked_body(const Request *r)
{
	Text		t = {0};
	const char *s = r->body.data;
	const char *secret;
	size_t		len = r->body.len < MAX_BODY ? r->body.len : MAX_BODY;

	if (s == NULL)
		return NULL;
	text_puts(&t, "");
	while ((secret = memmem(s, len, "client_secret", 13)) != NULL)
	{
		size_t		before = (size_t) (secret - s) + 13;

		text_add(&t, s, before);
		s += before;
		len -= before;
		if (len > 0 && (*s == '=' || *s == '"'))
		{
			text_puts(&t, "=***");
			while (len > 0 && *s != '&')
				s++, len--;
		}
	}
	text_add(&t, s, len);
	return t.data;
}

/* Notes a request that has arrived whole. */
void
journal_begin(Request *r)
{
	Entry	   *e;

	if (ring == NULL)
	{
		ring = xmalloc(RING * sizeof(Entry));
		memset(ring, 0, RING * sizeof(Entry));
	}
	r->entry = ++last;
	e = &ring[last % RING];
	entry_free(e);
	e->n = last;
	e->method = copy(r->method);
	e->path = copy(r->path);
	e->query = copy(r->query);
	e->user_agent = copy(r->user_agent);
	e->body = strcmp(r->method, "GET") == 0 ? NULL : masked_body(r);
	e->api = r->api;
	e->arrived = r->arrived;
	e->connection = r->connection;
	total++;
}

/* Completes its entry when it is known how it ends. */
void
journal_end(const Request *r, int status, bool delivered)
{
	Entry	   *e;

	if (r->entry == 0)
		return;					/* the admin's */
	e = &ring[r->entry % RING];
	by_status[status > 0 && status < 1000 ? status : 0]++;
	undelivered += !delivered;
	if (r->api == API_TOKEN && status == 200)
		token_fetches++;
	if (e->n != r->entry)
		return;
	e->status = status;
	e->delivered = delivered;
	e->took_ms = steady_ms() - r->arrived_ms;
	e->client_id = r->caller.client_id[0] ? xstrdup(r->caller.client_id) : NULL;
	e->fault = r->fault;
}

void
journal_connection(bool opened)
{
	accepted += opened;
	open_now += opened ? 1 : -1;
}

/* A connection has its first request that is not the admin's. */
void
journal_first_use(void)
{
	used++;
}

static void
put(Text *t, const char *key, const char *value)
{
	text_printf(t, ",\"%s\":", key);
	text_json_or_null(t, value, JSON_PLAIN);
}

/* The entries numbered higher than since, as a JSON array. */
void
journal_list(Text *out, uint64_t since)
{
	uint64_t	first = last > RING ? last - RING + 1 : 1;
	bool		comma = false;

	if (first <= cleared)
		first = cleared + 1;
	if (first <= since)
		first = since + 1;
	text_puts(out, "[");
	for (uint64_t n = first; n <= last; n++)
	{
		const Entry *e = &ring[n % RING];

		if (e->n != n)
			continue;
		text_printf(out, "%s{\"n\":%llu", comma ? ",\n" : "", (unsigned long long) n);
		comma = true;
		put(out, "method", e->method);
		put(out, "path", e->path);
		put(out, "query", e->query);
		text_printf(out, ",\"status\":%d,\"delivered\":%s", e->status, e->delivered ? "true" : "false");
		put(out, "client_id", e->client_id);
		put(out, "api", api_names[e->api]);
		text_printf(out, ",\"time_ms\":%lld,\"took_ms\":%lld,\"connection\":%u",
					(long long) (e->arrived / 1000), (long long) e->took_ms, e->connection);
		put(out, "user_agent", e->user_agent);
		put(out, "fault", e->fault);
		put(out, "body", e->body);
		text_puts(out, "}");
	}
	text_puts(out, "]");
}

/* Entries are forgotten and the sums begin anew; connections stay counted. */
void
journal_clear(void)
{
	cleared = last;
	total = token_fetches = undelivered = 0;
	memset(by_status, 0, sizeof(by_status));
}

void
journal_stats(cJSON *out)
{
	cJSON	   *states;

	cJSON_AddNumberToObject(out, "requests", (double) total);
	states = cJSON_AddObjectToObject(out, "by_status");
	for (int i = 0; i < 1000; i++)
		if (by_status[i] > 0)
		{
			char		key[8];

			snprintf(key, sizeof(key), "%d", i);
			cJSON_AddNumberToObject(states, key, (double) by_status[i]);
		}
	cJSON_AddNumberToObject(out, "undelivered", (double) undelivered);
	cJSON_AddNumberToObject(out, "token_fetches", (double) token_fetches);
	cJSON_AddNumberToObject(out, "connections", (double) used);
	cJSON_AddNumberToObject(out, "connections_accepted", (double) accepted);
	cJSON_AddNumberToObject(out, "connections_open", (double) open_now);
}
