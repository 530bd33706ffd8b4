/*
 * limit.c
 *
 * The rate limit: so many requests in any 10 s for a client and an API
 * version, token calls counted with every version.  What arrives is counted
 * apart from what is let through, so that a test can ask how hard a client
 * tried.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MS 10000

/* Times of the last 10 s, oldest first, in a ring. */
typedef struct Window
{
	int64_t    *times;
	size_t		first;
	size_t		n;
	size_t		cap;
} Window;

typedef struct Client
{
	char	   *id;
	Window		passed[API_NONE];
	Window		arrived[API_NONE];
	size_t		most[API_NONE]; /* arrivals in any 10 s, so far */
	int			warned;			/* how often it was told to wait longer */
	int64_t		warned_until;
	struct Client *next;
} Client;

int			rate_retry_after_s;
bool		rate_retry_as_date;
bool		rate_retry_grows;

/* Who goes on while he is to wait has to wait longer. */
static const int growing_s[] = {60, 300, 600, 1200};

static Client *clients;

static Client *
find_client(const char *id)
{
	Client	   *c = clients;

	while (c && strcmp(c->id, id) != 0)
		c = c->next;
	if (c == NULL)
	{
		c = xmalloc(sizeof(Client));
		memset(c, 0, sizeof(Client));
		c->id = xstrdup(id);
		c->next = clients;
		clients = c;
	}
	return c;
}

static size_t
window_count(Window *w, int64_t now)
{
	while (w->n > 0 && w->times[w->first] <= now - WINDOW_MS)
	{
		w->first = (w->first + 1) % w->cap;
		w->n--;
	}
	return w->n;
}

static void
window_add(Window *w, int64_t now)
{
	if (w->n == w->cap)
	{
		size_t		cap = w->cap ? w->cap * 2 : 64;
		int64_t    *times = xmalloc(cap * sizeof(int64_t));

		for (size_t i = 0; i < w->n; i++)
			times[i] = w->times[(w->first + i) % w->cap];
		free(w->times);
		*w = (Window) {times, 0, w->n, cap};
	}
	w->times[(w->first + w->n++) % w->cap] = now;
}

static int64_t
window_oldest(Window *w, int64_t now)
{
	return window_count(w, now) ? w->times[w->first] : now;
}

static void
refuse(Client *c, Api api, int64_t now, Answer *a)
{
	int64_t		oldest = window_oldest(&c->passed[api], now);
	int64_t		token = window_oldest(&c->passed[API_TOKEN], now);
	int64_t		wait_s;
	char		value[32];

	if (token < oldest)
		oldest = token;
	wait_s = rate_retry_after_s > 0 ? rate_retry_after_s : (oldest + WINDOW_MS - now + 999) / 1000;
	if (wait_s < 1)
		wait_s = 1;
	if (rate_retry_grows)
	{
		wait_s = growing_s[c->warned];
		if (c->warned < (int) (sizeof(growing_s) / sizeof(growing_s[0])) - 1)
			c->warned++;
		c->warned_until = now + wait_s * 1000;
	}
	if (rate_retry_as_date)
		date_http(wall_clock() + wait_s * USECS_PER_SEC, value);
	else
		snprintf(value, sizeof(value), "%lld", (long long) wait_s);
	answer_clear(a);
	a->status = 429;
	a->content_type = "application/json";
	text_puts(&a->body, "{\"message\":\" Rate Limit Exceeded \"}");
	answer_header(a, "Retry-After", value);
}

/* Counts a request of a known client, whatever becomes of it. */
void
limit_count(const Request *r)
{
	Client	   *c = find_client(r->caller.client_id);
	Api			api = r->api;
	size_t		here;

	if (api == API_NONE)
		return;
	window_add(&c->arrived[api], r->arrived_ms);
	here = window_count(&c->arrived[api], r->arrived_ms);
	if (api != API_TOKEN)
		here += window_count(&c->arrived[API_TOKEN], r->arrived_ms);
	if (here > c->most[api])
		c->most[api] = here;
}

/* False, with the answer made, if the request is one too many. */
bool
limit_take(Request *r, Answer *a)
{
	Client	   *c = find_client(r->caller.client_id);
	Api			api = r->api;
	int64_t		now = r->arrived_ms;
	size_t		used = 0;

	limit_count(r);
	for (int v = 0; v < API_TOKEN; v++)
	{
		size_t		n = window_count(&c->passed[v], now);

		if ((v == (int) api || api == API_TOKEN) && n > used)
			used = n;
	}
	used += window_count(&c->passed[API_TOKEN], now);
	if (options.rate > 0 && (used >= (size_t) options.rate || (rate_retry_grows && now < c->warned_until)))
	{
		refuse(c, api, now, a);
		return false;
	}
	window_add(&c->passed[api], now);
	return true;
}

/* {"client/version": most requests in any 10 s} */
void
limit_json(cJSON *out)
{
	for (Client *c = clients; c; c = c->next)
		for (int v = 0; v < API_NONE; v++)
			if (c->most[v] > 0)
			{
				Text		key = {0};

				text_printf(&key, "%s/%s", c->id, api_names[v]);
				cJSON_AddNumberToObject(out, key.data, (double) c->most[v]);
				text_free(&key);
			}
}

/* Forgets all windows, and the maxima with them. */
void
limit_reset(void)
{
	for (Client *c = clients; c; c = c->next)
	{
		for (int v = 0; v < API_NONE; v++)
		{
			c->passed[v].n = c->arrived[v].n = 0;
			c->most[v] = 0;
		}
		c->warned = 0;
		c->warned_until = 0;
	}
}
