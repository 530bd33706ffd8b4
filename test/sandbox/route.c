/*
 * route.c
 *
 * Which call a request is, in which API version, and whether its sender may
 * make it: the checks that a gateway makes before a service sees anything.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_URI 8192

const char *const api_names[] = {"beta", "v3", "v2024", "v2025", "v2026", "v1", "token", "none"};

#define ALL_APIS 0x3f
#define BIT(api) (1u << (api))

typedef struct Route
{
	const char *method;
	const char *resource;
	unsigned	apis;
	bool		admins_only;
	void		(*call) (Request *r, Answer *a);
} Route;

static const Route routes[] = {
	{"GET", "access-request-status", ALL_APIS, false, status_list},
	{"POST", "access-requests", ALL_APIS, false, call_create},
	{"POST", "access-requests/cancel", ALL_APIS, false, call_cancel},
	{"POST", "access-requests/close", ALL_APIS & ~BIT(API_V3), true, call_close},
	{"POST", "access-requests/bulk-cancel", ALL_APIS & ~BIT(API_V3) & ~BIT(API_BETA), true, call_bulk_cancel},
	{"GET", "access-request-config", ALL_APIS, false, call_get_config},
	{"PUT", "access-request-config", ALL_APIS, true, call_put_config},
	{"GET", "identities", ALL_APIS, false, call_identities},
	{"GET", "roles", ALL_APIS, false, call_roles},
	{"GET", "public-identities-config", ALL_APIS, false, call_public_identities_config},
};

#define NROUTES (sizeof(routes) / sizeof(routes[0]))

/* ---- query strings and forms ---- */

void
params_parse(Params *p, const char *text, bool form)
{
	char	   *save = NULL;

	memset(p, 0, sizeof(*p));
	p->copy = xstrdup(text);
	for (char *part = strtok_r(p->copy, "&", &save); part && p->n < MAX_PARAMS;
		 part = strtok_r(NULL, "&", &save))
	{
		char	   *value = strchr(part, '=');

		if (value)
			*value++ = '\0';
		else
			value = part + strlen(part);
		if (!url_decode(part, form) || !url_decode(value, form))
			p->bad = true;
		else
			p->list[p->n++] = (Param) {part, value};
	}
}

const char *
params_get(const Params *p, const char *name)
{
	for (int i = 0; i < p->n; i++)
		if (strcmp(p->list[i].name, name) == 0)
			return p->list[i].value;
	return NULL;
}

void
params_free(Params *p)
{
	free(p->copy);
	p->copy = NULL;
	p->n = 0;
}

/* ---- paths ---- */

/* /access-requests/v1/cancel: the version follows the first segment. */
static bool
parse_v1(Request *r, const char *path)
{
	const char *slash = strchr(path, '/');
	size_t		len = slash ? (size_t) (slash - path) : 0;
	const char *version;

	if (len == 0)
		return false;
	version = len == 21 && strncmp(path, "access-request-config", 21) == 0 ? "/v2" : "/v1";
	if (strncmp(slash, version, 3) != 0 || (slash[3] != '\0' && slash[3] != '/'))
		return false;
	if (snprintf(r->resource_text, sizeof(r->resource_text), "%.*s%s", (int) len, path, slash + 3) >=
		(int) sizeof(r->resource_text))
		return false;
	r->resource = r->resource_text;
	r->api = API_V1;
	return true;
}

/* Splits the URI and finds out what it is about. */
void
route_parse(Request *r)
{
	const char *question = strchr(r->uri, '?');
	const char *path;

	r->path = question ? xstrndup(r->uri, (size_t) (question - r->uri)) : xstrdup(r->uri);
	r->query = question ? xstrdup(question + 1) : NULL;
	r->api = API_NONE;
	r->admin = strncmp(r->path, "/_sandbox/", 10) == 0;
	if (r->admin || r->path[0] != '/')
		return;
	if (strcmp(r->path, "/oauth/token") == 0)
	{
		r->api = API_TOKEN;
		return;
	}
	path = r->path + 1;
	for (int v = API_BETA; v <= API_V2026; v++)
	{
		size_t		len = strlen(api_names[v]);

		if (strncmp(path, api_names[v], len) == 0 && path[len] == '/')
		{
			r->api = (Api) v;
			r->resource = path + len + 1;
			return;
		}
	}
	parse_v1(r, path);
}

/* ---- the way of a request ---- */

static const Route *
find_route(const Request *r, const char **allowed)
{
	*allowed = NULL;
	for (size_t i = 0; i < NROUTES && r->resource; i++)
	{
		if (strcmp(routes[i].resource, r->resource) != 0 || !(routes[i].apis & BIT(r->api)))
			continue;
		*allowed = *allowed ? "GET, PUT" : routes[i].method;
		if (strcmp(routes[i].method, r->method) == 0)
			return &routes[i];
	}
	return NULL;
}

static void
not_authorized(Answer *a)
{
	a->status = 401;
	a->content_type = "application/json";
	text_puts(&a->body, "{\"error\":\"JWT validation failed: JWT is expired\"}");
	answer_header(a, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
}

static bool
may_call(const Request *r, const Route *route, Answer *a)
{
	if (r->caller.identity == NULL)
		answer_error(a, 403, "The server understood the request but refuses to authorize it.");
	else if (r->caller.self_only && route->admins_only)
		answer_error(a, 403, "This call needs the user level ORG_ADMIN.");
	else
		return true;
	return false;
}

static bool
body_acceptable(const Request *r, Answer *a)
{
	if (strcmp(r->method, "GET") == 0)
		return true;
	if (r->too_large)
		answer_error(a, 413, "The body is too large.");
	else if (r->content_type == NULL || strncasecmp(r->content_type, "application/json", 16) != 0)
		answer_error(a, 415, "The content type must be application/json.");
	else
		return true;
	return false;
}

static void
route_api(Request *r, Answer *a)
{
	const char *allowed;
	const Route *route = find_route(r, &allowed);

	if (route == NULL && allowed == NULL)
		answer_error(a, 404, "The path %.200s does not exist.", r->path);
	else if (!token_check(r))
		not_authorized(a);
	else if (!limit_take(r, a))
		return;
	else if (route == NULL)
	{
		answer_error(a, 405, "The method %.20s is not supported here.", r->method);
		answer_header(a, "Allow", allowed);
	}
	else if (may_call(r, route, a) && body_acceptable(r, a))
		route->call(r, a);
}

/* From a request that has arrived whole to its answer. */
void
route(Request *r, Answer *a)
{
	life_run();
	if (r->admin)
	{
		admin_call(r, a);
		return;
	}
	if (r->user_agent == NULL || r->user_agent[0] == '\0')
		answer_html(a, 403);
	else if (strlen(r->uri) > MAX_URI)
		answer_html(a, 414);
	else if (r->api != API_TOKEN)
		route_api(r, a);
	else if (strcmp(r->method, "POST") == 0)
		token_fetch(r, a);
	else
	{
		answer_error(a, 405, "The method %.20s is not supported here.", r->method);
		answer_header(a, "Allow", "POST");
	}
	if (r->api == API_BETA)
	{
		answer_header(a, "Deprecation", "true");
		answer_header(a, "X-Deprecated", "beta stops working in the first quarter of 2029");
	}
}
