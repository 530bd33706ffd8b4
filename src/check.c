/*-------------------------------------------------------------------------
 *
 * check.c
 *	  accessreq.check(): what works on the way to the tenant, what does not,
 *	  and what to do.
 *
 * What a newcomer runs first.  It takes the steps of a call one by one and
 * turns what any of them raises into a row; it stops where the next step could
 * only fail for the same reason.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "api.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "dates.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "identity.h"
#include "item.h"
#include "job.h"
#include "limiter.h"
#include "miscadmin.h"
#include "row.h"
#include "session.h"
#include "token.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "workers.h"

PG_FUNCTION_INFO_V1(accessreq_check);

/* A clock that is off by more makes dates and tokens look wrong. */
#define MAX_CLOCK_DIFFERENCE (60 * USECS_PER_SEC)

/* Requests left below this are reported as a problem. */
#define FEW_REQUESTS 5

typedef struct Check
{
	FunctionCallInfo fcinfo;
	MemoryContext cxt;
	const char *name;			/* of the server, as given, or NULL */
	Oid			serverid;
	const Tenant *tenant;
	CallSet    *calls;
	const char *step;
	int64		all;			/* counts that tell the token's level */
	int64		own;
} Check;

typedef enum Verdict
{
	BAD,
	GOOD,
	NEITHER
} Verdict;

static void
put(Check *c, const char *step, Verdict verdict, const char *detail, const char *hint)
{
	Datum		values[4] = {0};
	bool		nulls[4] = {0};

	values[0] = CStringGetTextDatum(step);
	values[1] = BoolGetDatum(verdict == GOOD);
	nulls[1] = verdict == NEITHER;
	nulls[2] = detail == NULL;
	if (detail)
		values[2] = CStringGetTextDatum(detail);
	nulls[3] = hint == NULL;
	if (hint)
		values[3] = CStringGetTextDatum(hint);
	session_put_row(c->fcinfo, values, nulls);
}

/* An error of a step becomes its row; one that is not the step's is raised. */
static void
put_error(Check *c, ErrorData *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	if (class == ERRCODE_TO_CATEGORY(ERRCODE_QUERY_CANCELED))
		ReThrowError(error);
	put(c, c->step, BAD,
		error->detail ? psprintf("%s. %s", error->message, error->detail) : error->message,
		error->hint);
	FreeErrorData(error);
}

/* Take a step in a subtransaction: false where it raised. */
static bool
take(Check *c, const char *step, void (*run) (Check *c))
{
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	c->step = step;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(c->cxt);
	PG_TRY();
	{
		run(c);
		ReleaseCurrentSubTransaction();
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(c->cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(c->cxt);
		CurrentResourceOwner = owner;
		put_error(c, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(c->cxt);
	CurrentResourceOwner = owner;
	return ok;
}

/* ------------------------------------------------------- steps in this server */

static void
step_server(Check *c)
{
	c->serverid = tenant_resolve(c->name, GetUserId());
	put(c, c->step, GOOD, GetForeignServer(c->serverid)->servername, NULL);
}

static void
step_usage(Check *c)
{
	tenant_check_usage(c->serverid, GetUserId());
	put(c, c->step, GOOD, psprintf("role \"%s\" may use it", GetUserNameFromId(GetUserId(), false)),
		NULL);
}

static const char *
credential_text(const Tenant *t)
{
	switch (t->credential)
	{
		case CREDENTIAL_SECRET:
			return "client_id and client_secret";
		case CREDENTIAL_SECRET_FILE:
			return "client_id and client_secret_file";
		case CREDENTIAL_TOKEN:
			return "a static access_token";
	}
	return "";
}

static void
step_mapping(Check *c)
{
	const char *role = GetUserNameFromId(GetUserId(), false);

	tenant_check_mapping(c->serverid, GetUserId());
	if (tenant_has_own_mapping(c->serverid, GetUserId()))
		put(c, c->step, GOOD, psprintf("role \"%s\" has one", role), NULL);
	else
		put(c, c->step, GOOD,
			psprintf("role \"%s\" acts with that for PUBLIC, as every role with USAGE does", role),
			TENANT_PUBLIC_MAPPING_HINT);
}

static void
step_options(Check *c)
{
	c->tenant = tenant_open(c->serverid, GetUserId(), c->cxt);
	c->calls = call_open(c->cxt);
	put(c, c->step, GOOD,
		psprintf("%s, api %s, %s, %s%s", c->tenant->base_url, tenant_api_names[c->tenant->api],
				 credential_text(c->tenant),
				 c->tenant->rate_limit > 0 ?
				 psprintf("%d requests in 10 s", c->tenant->rate_limit) : "no rate limit",
				 c->tenant->read_only ? ", read-only" : ""), NULL);
}

static void
step_library(Check *c)
{
	http_check_library();
	put(c, c->step, GOOD, http_library(), NULL);
}

/* ----------------------------------------------------------- steps over the net */

static void
put_api_error(Check *c, const char *step, const ApiError *error)
{
	put(c, step, BAD,
		error->detail ? psprintf("%s. %s", error->message, error->detail) : error->message,
		error->hint);
}

/* What the fate of a first request says of the network.  False: it failed. */
static bool
report_network(Check *c, const ApiError *error)
{
	HttpFailure failure = error ? error->failure : HTTP_ANSWERED;
	bool		https = pg_strncasecmp(c->tenant->base_url, "https:", 6) == 0;

	/* refused before anything was sent: nothing is known of the network */
	if (error != NULL && failure == HTTP_ANSWERED && error->status == 0)
		return true;
	if (failure == HTTP_FAILED_RESOLVE)
	{
		put_api_error(c, "dns", error);
		return false;
	}
	put(c, "dns", GOOD, psprintf("%s has an address", c->tenant->host), NULL);
	if (failure == HTTP_FAILED_TLS)
	{
		put_api_error(c, "tls", error);
		return false;
	}
	if (failure != HTTP_ANSWERED)
	{
		put_api_error(c, "connection", error);
		return false;
	}
	put(c, "tls", https ? GOOD : NEITHER,
		https ? (c->tenant->ca_file ? psprintf("certificate accepted by %s", c->tenant->ca_file) :
				 "certificate accepted by the system's CAs") :
		"plain http, which is accepted for this machine alone", NULL);
	return true;
}

static Call *
status_call(Check *c, const char *requested_for)
{
	ApiStatusQuery query = {0};
	CallSpec	spec;

	query.limit = 1;
	query.count = true;
	query.requested_for = requested_for;
	api_status(&spec, c->tenant, &query);
	return call_run(c->calls, &spec);
}

/* A token's own step: fetched, or given. */
static bool
report_token(Check *c, const ApiError *error, bool fetched)
{
	char	   *tenant;

	if (error != NULL)
	{
		put_api_error(c, "token", error);
		return false;
	}
	tenant = token_tenant(c->tenant);
	put(c, "token", GOOD,
		psprintf("%s%s%s",
				 c->tenant->credential == CREDENTIAL_TOKEN ? "given" :
				 fetched ? "fetched" : "kept from an earlier call",
				 tenant ? ", for tenant " : "", tenant ? api_error_text(tenant) : ""), NULL);
	return true;
}

static void
report_level(Check *c)
{
	if (c->own < 0 || c->all < 0)
		put(c, "level", NEITHER, "the tenant told no counts", NULL);
	else if (c->all == 0)
		put(c, "level", NEITHER, "the token sees no request at all, which says nothing of its level",
			"A new tenant has none; otherwise the user behind the token needs user level ORG_ADMIN.");
	else if (c->all == c->own)
		put(c, "level", BAD,
			psprintf("the token sees " INT64_FORMAT " requests, all of them its own user's", c->all),
			"To see everybody's, the user behind the token needs user level ORG_ADMIN.");
	else
		put(c, "level", GOOD,
			psprintf("the token sees " INT64_FORMAT " requests, " INT64_FORMAT " of them its own user's",
					 c->all, c->own), NULL);
}

static void
report_clock(Check *c, const HttpResponse *response)
{
	int64		off;

	if (response->date == DT_NOBEGIN)
	{
		put(c, "clock", NEITHER, "the tenant told no time", NULL);
		return;
	}
	off = GetCurrentTimestamp() - response->date;
	if (off > MAX_CLOCK_DIFFERENCE || off < -MAX_CLOCK_DIFFERENCE)
		put(c, "clock", BAD,
			psprintf("this machine is " INT64_FORMAT " s %s the tenant",
					 (off < 0 ? -off : off) / USECS_PER_SEC, off > 0 ? "ahead of" : "behind"),
			"Set this machine's clock: TLS and the dates of requests depend on it.");
	else
		put(c, "clock", GOOD, "within a minute of the tenant's", NULL);
}

static void
report_api(Check *c, const HttpResponse *response)
{
	const char *end = api_end_of_life(c->tenant->api);

	put(c, "api", GOOD,
		psprintf("%s answers%s%s%s", tenant_api_names[c->tenant->api],
				 response->deprecated ? ", the tenant calls it deprecated" : "",
				 end ? ", it ends in " : "", end ? end : ""),
		api_has(c->tenant, API_BULK_CANCEL) && api_has(c->tenant, API_CLOSE) ? NULL :
		"v2024 and later cancel 50 requests in one call and have every call.");
}

/* How filters take dates: asked for, whatever pulls have found out before. */
static void
report_dates(Check *c)
{
	DateProbe	probe = {0};
	const ApiError *error = NULL;
	CallSpec	spec;

	while (c->all != 0 && !probe.done && error == NULL)
	{
		dates_ask(&probe, c->tenant, &spec);
		error = dates_answer(&probe, c->tenant, call_run(c->calls, &spec));
	}
	if (error != NULL)
		put_api_error(c, "dates", error);
	else if (probe.form == DATES_UNKNOWN)
		put(c, "dates", NEITHER, "there is no request to see by how filters take dates", NULL);
	else if (probe.form == DATES_NEITHER)
		put(c, "dates", NEITHER, "no filter by a date matches anything, quoted or bare",
			"Pulls go by id instead, which takes longer: full scans in one window, taken up from their beginning.");
	else
		put(c, "dates", GOOD, psprintf("filters take dates %s",
									   probe.form == DATES_QUOTED ? "in double quotes" : "bare, without quotes"), NULL);
}

/* Not even the first page: a 403 is about who is behind the token. */
static void
report_refusal(Check *c, const ApiError *error)
{
	ApiError	hinted = *error;
	bool		denied = error->status == 403;

	if (denied && token_identity(c->tenant) == NULL)
		hinted.hint = "No user is behind this token: create a personal access token as a user of the tenant, and use its client id and secret.";
	else if (denied)
		hinted.hint = "The personal access token needs the scope idn:access-request-status:read, and its user the level for it: see the table of scopes in README.md.";
	put_api_error(c, denied ? "user" : "api", &hinted);
}

static bool
is_page(HttpResponse *response)
{
	JsonSpan   *items;
	int			nitems;
	const char *problem;

	return json_cut_page(response->body, response->body_len, ITEM_ID_KEY,
						 &items, &nitems, &problem);
}

static void
step_network(Check *c)
{
	const ApiError *token_error = call_fetch_token(c->calls, c->tenant, false);
	bool		fetched = call_counts(c->calls)->requests > 0;
	bool		reached;
	Call	   *all;
	Call	   *own;

	if (token_error != NULL)
	{
		if (report_network(c, token_error))
			(void) report_token(c, token_error, fetched);
		return;
	}
	/* a token may be here already, or come from another host: this tells */
	all = status_call(c, NULL);
	reached = report_network(c, call_error(all));
	/* a token that is given says nothing before it was tried */
	if (reached || c->tenant->credential != CREDENTIAL_TOKEN)
		(void) report_token(c, NULL, fetched);
	if (!reached)
		return;
	if (call_error(all) != NULL)
	{
		report_refusal(c, call_error(all));
		return;
	}
	if (!is_page(call_response(all)))
	{
		put(c, "api", BAD, "the host answers, but not with a list of access request statuses",
			"Check that base_url is the tenant's API URL and not a web page's.");
		return;
	}
	c->all = call_response(all)->total_count;
	own = status_call(c, "me");
	c->own = call_error(own) ? -1 : call_response(own)->total_count;
	if (call_error(own) != NULL)
		put_api_error(c, "user", call_error(own));
	else
	{
		char	   *identity = token_identity(c->tenant);

		put(c, "user", GOOD,
			identity ? psprintf("identity %s is behind the token", api_error_text(identity)) :
			"the token has a user behind it", NULL);
	}
	report_level(c);
	report_api(c, call_response(all));
	report_dates(c);
	report_clock(c, call_response(all));
}

/* ------------------------------------------------------------------ what is left */

static void
step_budget(Check *c)
{
	const Tenant *t = c->tenant;
	int			left = limiter_left(t);
	uint64		serial;
	/* who has a token does not ask for one */
	int64		blocked = Max(limiter_blocked(t),
							  token_get(t, &serial) == NULL ? limiter_token_blocked(t) : 0);
	const char *hint = limiter_is_shared() ? NULL :
		"Each session counts for itself: with accessreq in shared_preload_libraries all share one budget.";

	if (blocked > 0)
		put(c, c->step, BAD,
			psprintf("the tenant asked to wait " INT64_FORMAT " s more",
					 (blocked + USECS_PER_SEC - 1) / USECS_PER_SEC), hint);
	else if (left < 0)
		put(c, c->step, GOOD, "no limit", hint);
	else
		put(c, c->step, left >= Min(FEW_REQUESTS, t->rate_limit) ? GOOD : BAD,
			psprintf("%d of %d requests left in these 10 s", left, t->rate_limit), hint);
}

/* No worker is no fault where none is wanted. */
static void
step_worker(Check *c)
{
	int			pid = workers_pid();
	bool		enabled,
				starting;

	SPI_connect();
	enabled = job_owner(c->tenant->server).enabled;
	SPI_finish();
	if (pid == 0)
		put(c, c->step, enabled ? BAD : NEITHER,
			psprintf("not running: %s", workers_why_not(&starting)),
			psprintf("%sWithout it pulls run by CALL accessreq.sync() alone, and nothing that was enqueued is sent.",
					 workers_may_start() ? "SELECT accessreq.start_worker() starts one. " : ""));
	else if (enabled)
		put(c, c->step, GOOD, psprintf("process %d pulls this server", pid), NULL);
	else
		put(c, c->step, GOOD, psprintf("process %d runs, and does not pull this server", pid),
			psprintf("SELECT accessreq.start_sync('%s') has it pulled.", c->tenant->server));
}

static void
step_origin(Check *c)
{
	char	   *origin;
	char	   *other;
	char	   *tenant = token_tenant(c->tenant);

	SPI_connect();
	origin = job_origin(c->tenant->server);
	if (tenant != NULL)
		(void) job_check_tenant(c->tenant, c->tenant->server, tenant);
	other = job_left_behind(c->tenant, tenant);
	if (other != NULL)
		other = MemoryContextStrdup(c->cxt, other);
	SPI_finish();
	if (other != NULL)
	{
		put(c, c->step, BAD, psprintf("the rows of this tenant are stored under the name \"%s\", which no server has any more", other),
			psprintf(JOB_LEFT_BEHIND_HINT, other, c->tenant->server, other, c->tenant->server));
		return;
	}
	if (origin == NULL)
		put(c, c->step, NEITHER, "nothing was pulled yet", psprintf("CALL accessreq.sync('%s') pulls all statuses.", c->tenant->server));
	else if (strcmp(origin, identity_origin()) == 0)
		put(c, c->step, GOOD, "the pull belongs to this database", NULL);
	else
		put(c, c->step, BAD, "the pull belongs to another database, of which this is a copy",
			psprintf("Pull and send from one of the two only. If that is this one: SELECT accessreq.adopt('%s').",
					 c->tenant->server));
}

/* check(server name) */
Datum
accessreq_check(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {TEXTOID, BOOLOID, TEXTOID, TEXTOID};
	Check		c = {0};
	MemoryContext old = CurrentMemoryContext;

	session_begin_rows(fcinfo, columns, lengthof(columns));
	c.fcinfo = fcinfo;
	c.cxt = AllocSetContextCreate(CurTransactionContext, "accessreq check",
								  ALLOCSET_DEFAULT_SIZES);
	c.name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	MemoryContextSwitchTo(c.cxt);
	if (take(&c, "server", step_server) &&
		take(&c, "usage", step_usage) &&
		take(&c, "mapping", step_mapping) &&
		take(&c, "options", step_options) &&
		take(&c, "library", step_library))
	{
		(void) take(&c, "network", step_network);
		(void) take(&c, "budget", step_budget);
		(void) take(&c, "worker", step_worker);
		(void) take(&c, "origin", step_origin);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(c.cxt);
	return (Datum) 0;
}
