/*-------------------------------------------------------------------------
 *
 * api.c
 *	  The endpoints of the Access Requests API: paths per API version, bodies,
 *	  and the documented limits that are checked before anything is sent.
 *
 * The limits are the vendor's (its OpenAPI descriptions); checking them here
 * costs nothing, names the rule that is broken, and spends no request of the
 * budget on an answer that is known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "filter.h"
#include "item.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

/* ------------------------------------------------------------------ versions */

typedef struct EndpointPath
{
	const char *name;			/* for messages */
	const char *path;			/* after "/<api>" */
	const char *v1_path;		/* with the version in its middle */
	uint32		missing;		/* bits of the apis that lack it */
} EndpointPath;

#define API_BIT(api) (1U << (api))

static const EndpointPath endpoints[] = {
	[API_CREATE] = {"create", "/access-requests", "/access-requests/v1", 0},
	[API_CANCEL] = {"cancel", "/access-requests/cancel", "/access-requests/v1/cancel", 0},
	[API_BULK_CANCEL] = {"bulk-cancel", "/access-requests/bulk-cancel",
	"/access-requests/v1/bulk-cancel", API_BIT(API_BETA) | API_BIT(API_V3)},
	[API_CLOSE] = {"close", "/access-requests/close", "/access-requests/v1/close",
	API_BIT(API_V3)},
	[API_STATUS] = {"status", "/access-request-status", "/access-request-status/v1", 0},
	[API_CONFIG] = {"configuration", "/access-request-config", "/access-request-config/v2", 0},
};

/* v2026 guards its configuration by this header. */
#define EXPERIMENTAL_HEADER "X-SailPoint-Experimental: true"

bool
api_has(const Tenant *tenant, ApiEndpoint endpoint)
{
	return (endpoints[endpoint].missing & API_BIT(tenant->api)) == 0;
}

const char *
api_end_of_life(ApiVersion api)
{
	/* the vendor ends all versions that stand in front of the path */
	return api == API_V1 ? NULL : "the first quarter of 2029";
}

void
api_check_has(const Tenant *tenant, ApiEndpoint endpoint)
{
	const EndpointPath *e = &endpoints[endpoint];

	if (!api_has(tenant, endpoint))
	{
		StringInfoData apis;

		initStringInfo(&apis);
		for (int i = 0; i < API_VERSIONS; i++)
		{
			if ((e->missing & API_BIT(i)) == 0)
				appendStringInfo(&apis, "%s%s", apis.len > 0 ? ", " : "", tenant_api_names[i]);
		}
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("API version \"%s\" of server \"%s\" has no call \"%s\"",
						tenant_api_names[tenant->api], tenant->server, e->name),
				 errhint("These have it: %s. Change option api with ALTER SERVER.", apis.data)));
	}
}

static char *
endpoint_path(const Tenant *tenant, ApiEndpoint endpoint)
{
	const EndpointPath *e = &endpoints[endpoint];

	api_check_has(tenant, endpoint);
	if (tenant->api == API_V1)
		return pstrdup(e->v1_path);
	return psprintf("/%s%s", tenant_api_names[tenant->api], e->path);
}

static void
fill(CallSpec *spec, const Tenant *tenant, const char *method, char *path, char *what)
{
	memset(spec, 0, sizeof(CallSpec));
	spec->tenant = tenant;
	spec->method = method;
	/* every version documents these, and no other */
	spec->accepted = strcmp(method, "POST") == 0 ? 202 : 200;
	spec->path = path;
	spec->what = what;
}

static void
refuse(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 hint ? errhint("%s", hint) : 0));
}

static bool
given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* -------------------------------------------------------------------- status */

void
api_check_status_query(const ApiStatusQuery *q)
{
	if (given(q->regarding_identity) && (given(q->requested_for) || given(q->requested_by)))
		refuse("regarding_identity excludes requested_for and requested_by", NULL);
	if (given(q->request_state) && strcmp(q->request_state, "EXECUTING") != 0)
		refuse(psprintf("invalid request_state \"%s\"", api_error_text(q->request_state)),
			   "The tenant filters by EXECUTING alone; other states are filtered in SQL.");
	if (q->limit < 1 || q->limit > API_MAX_PAGE)
		refuse(psprintf("page_size %d is outside the valid range (1 .. %d)", q->limit, API_MAX_PAGE),
			   NULL);
	if (q->offset < 0 || q->offset > PG_INT32_MAX)
		refuse("row_offset is outside the valid range (0 .. 2147483647)", NULL);
}

static void
add_parameter(StringInfo buf, const char *name, const char *value)
{
	if (given(value))
		appendStringInfo(buf, "&%s=%s", name, http_encode(value));
}

void
api_status(CallSpec *spec, const Tenant *tenant, const ApiStatusQuery *q)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s?limit=%d", endpoint_path(tenant, API_STATUS), q->limit);
	if (q->offset > 0)
		appendStringInfo(&buf, "&offset=" INT64_FORMAT, q->offset);
	if (q->count)
		appendStringInfoString(&buf, "&count=true");
	add_parameter(&buf, "requested-for", q->requested_for);
	add_parameter(&buf, "requested-by", q->requested_by);
	add_parameter(&buf, "regarding-identity", q->regarding_identity);
	add_parameter(&buf, "assigned-to", q->assigned_to);
	add_parameter(&buf, "request-state", q->request_state);
	add_parameter(&buf, "filters", q->filters);
	/* the order without sorters is undocumented */
	add_parameter(&buf, "sorters", given(q->sorters) ? q->sorters : ITEM_ID_KEY);
	fill(spec, tenant, "GET", buf.data, pstrdup("list access request statuses"));
	spec->unknown_hint = "The host answers, and has no such API: check base_url and api of the server.";
	if (given(q->filters) || given(q->sorters))
		spec->refused_hint = "Filters go by accountActivityItemId, created and accessRequestId, with operators in lower case and dates as \"2026-01-31T00:00:00Z\" in double quotes, or bare where accessreq.check() says so; sorters by created, modified, accountActivityItemId and name. Everything else is filtered in SQL, over accessreq.request_status.";
}

int
api_ids_per_filter(const Tenant *tenant)
{
	/* "accessRequestId in (…)" went away with v2024 */
	return tenant->api == API_BETA || tenant->api == API_V3 ? API_MAX_IDS_IN_FILTER : 1;
}

/* -------------------------------------------------------------------- create */

typedef struct CreateCheck
{
	bool		revoke;
	int			entitlements;
	int			identities;
} CreateCheck;

/* Reading is lenient, but the tenant takes dates with a time and a Z alone. */
static bool
is_utc(const char *date)
{
	size_t		len = strlen(date);

	return strchr(date, 'T') != NULL && date[len - 1] == 'Z';
}

static void
check_date(const JsonValue *item, const char *key)
{
	const JsonValue *value = json_get(item, key);
	TimestampTz t;

	if (value == NULL || json_is_null(value))
		return;
	t = json_is_string(value) ? item_parse_time(json_string(value)) : ITEM_NO_TIME;
	if (t == ITEM_NO_TIME || !is_utc(json_string(value)))
		refuse(psprintf("%s of a requested item is not a date in UTC", key),
			   "Write it in UTC as 2030-01-31T00:00:00Z, or leave the key out.");
	if (t <= GetCurrentTimestamp())
		refuse(psprintf("%s of a requested item lies in the past", key), NULL);
}

static void
check_metadata(const JsonValue *holder, const char *where)
{
	const JsonValue *metadata = json_get(holder, "clientMetadata");

	if (metadata == NULL || json_is_null(metadata))
		return;
	if (!json_is_object(metadata))
		refuse(psprintf("clientMetadata of %s is not an object", where), NULL);
	for (const JsonValue *v = json_first(metadata); v != NULL; v = json_next(v))
	{
		if (!json_is_string(v))
			refuse(psprintf("clientMetadata of %s holds a value that is not a string", where), NULL);
	}
}

static void
check_requested_item(const JsonValue *item, CreateCheck *check)
{
	const char *type = json_get_string(item, "type");
	const char *comment = json_get_string(item, "comment");

	if (!json_is_object(item))
		refuse("a requested item is not an object", NULL);
	if (type == NULL || (strcmp(type, "ACCESS_PROFILE") != 0 &&
						 strcmp(type, "ROLE") != 0 && strcmp(type, "ENTITLEMENT") != 0))
		refuse("the type of a requested item is not one of ACCESS_PROFILE, ROLE and ENTITLEMENT", NULL);
	if (!given(json_get_string(item, "id")))
		refuse("a requested item has no id", NULL);
	if (strcmp(type, "ENTITLEMENT") == 0)
		check->entitlements++;
	if (check->revoke && !given(comment))
		refuse("a revoke needs a comment on each requested item", NULL);
	if (check->revoke && json_get(item, "startDate") != NULL)
		refuse("a revoke takes no startDate", "Give a removeDate, or none to revoke at once.");
	check_date(item, "startDate");
	check_date(item, "removeDate");
	check_metadata(item, "a requested item");
}

static void
check_requested_items(const JsonValue *items, CreateCheck *check)
{
	if (!json_is_array(items) || json_size(items) == 0)
		refuse("requestedItems is not an array with at least one item", NULL);
	for (const JsonValue *i = json_first(items); i != NULL; i = json_next(i))
		check_requested_item(i, check);
}

static void
check_requested_for(const JsonValue *people, CreateCheck *check)
{
	if (!json_is_array(people) || json_size(people) == 0)
		refuse("requestedFor is not an array with at least one identity", NULL);
	for (const JsonValue *p = json_first(people); p != NULL; p = json_next(p))
	{
		if (!given(json_string(p)))
			refuse("requestedFor holds something else than ids of identities", NULL);
	}
	check->identities = json_size(people);
}

/* requestedForWithRequestedItems: each person with items of his own. */
static void
check_combined(const JsonValue *list, CreateCheck *check)
{
	if (check->revoke)
		refuse("requestedForWithRequestedItems is for GRANT_ACCESS alone", NULL);
	if (!json_is_array(list) || json_size(list) == 0)
		refuse("requestedForWithRequestedItems is not an array with at least one entry", NULL);
	for (const JsonValue *e = json_first(list); e != NULL; e = json_next(e))
	{
		if (!given(json_get_string(e, "identityId")))
			refuse("an entry of requestedForWithRequestedItems has no identityId", NULL);
		check_requested_items(json_get(e, "requestedItems"), check);
	}
	check->identities = json_size(list);
}

static bool
is_absent(const JsonValue *v)
{
	return v == NULL || json_is_null(v);
}

void
api_check_create(const JsonValue *body)
{
	CreateCheck check = {0};
	const JsonValue *type = json_get(body, "requestType");
	const JsonValue *combined = json_get(body, "requestedForWithRequestedItems");
	const char *name = json_string(type);

	if (!json_is_object(body))
		refuse("an access request is not an object",
			   "See accessreq.grant_request() and accessreq.revoke_request(), which make one.");
	if (!is_absent(type) &&
		(name == NULL || (strcmp(name, "GRANT_ACCESS") != 0 &&
						  strcmp(name, "REVOKE_ACCESS") != 0 &&
						  strcmp(name, "MODIFY_ACCESS") != 0)))
		refuse("requestType is not one of GRANT_ACCESS, REVOKE_ACCESS and MODIFY_ACCESS", NULL);
	check.revoke = name != NULL && strcmp(name, "REVOKE_ACCESS") == 0;
	if (!is_absent(combined))
	{
		if (json_get(body, "requestedFor") != NULL || json_get(body, "requestedItems") != NULL)
			refuse("requestedForWithRequestedItems excludes requestedFor and requestedItems, empty ones too", NULL);
		check_combined(combined, &check);
	}
	else
	{
		check_requested_for(json_get(body, "requestedFor"), &check);
		check_requested_items(json_get(body, "requestedItems"), &check);
	}
	check_metadata(body, "the access request");
	if (check.revoke && check.identities > 1)
		refuse("a revoke is for one identity",
			   "Send one access request for each.");
	if (check.revoke && check.entitlements > 1)
		refuse("a revoke takes one entitlement", "Send one access request for each.");
	if (check.entitlements > API_MAX_ENTITLEMENTS)
		refuse(psprintf("an access request takes at most %d entitlements, this one has %d",
						API_MAX_ENTITLEMENTS, check.entitlements), NULL);
	if (check.entitlements > 0 && check.identities > API_MAX_IDENTITIES)
		refuse(psprintf("an access request with an entitlement takes at most %d identities, this one has %d",
						API_MAX_IDENTITIES, check.identities),
			   "accessreq.grant_request() makes as many bodies as are needed.");
}

void
api_create(CallSpec *spec, const Tenant *tenant, const char *body, const JsonValue *parsed)
{
	const char *type = json_get_string(parsed, "requestType");

	fill(spec, tenant, "POST", endpoint_path(tenant, API_CREATE),
		 pstrdup("create an access request"));
	spec->body = body;
	spec->refused_hint = type != NULL && strcmp(type, "REVOKE_ACCESS") == 0 ?
		"A revoke is for a manager's direct reports or by an ORG_ADMIN, never for oneself, and not for access by role membership or birthright." :
		"Check the ids of identities and items, and that the items are requestable.";
}

/* ------------------------------------------------------------- cancel, close */

#define CANCEL_REFUSED_HINT \
	"A request can be cancelled only before its approval has passed; after that use accessreq.close(). It may be cancelled or finished already: accessreq.status_of() tells."
#define UNKNOWN_REQUEST_HINT \
	"Check the id: it is access_request_id, not account_activity_item_id. A new request is known some seconds after it was created."

void
api_check_comment(const char *comment)
{
	if (!given(comment))
		refuse("a cancel needs a comment", NULL);
}

static void
append_ids(StringInfo buf, const char *const *ids, int nids)
{
	appendStringInfoString(buf, "{\"accessRequestIds\":[");
	for (int i = 0; i < nids; i++)
	{
		if (i > 0)
			appendStringInfoChar(buf, ',');
		json_append_string(buf, ids[i]);
	}
	appendStringInfoChar(buf, ']');
}

static void
append_member(StringInfo buf, const char *key, const char *value)
{
	if (!given(value))
		return;
	appendStringInfo(buf, ",\"%s\":", key);
	json_append_string(buf, value);
}

void
api_cancel(CallSpec *spec, const Tenant *tenant, const char *id, const char *comment)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"accountActivityId\":");
	json_append_string(&buf, id);
	append_member(&buf, "comment", comment);
	appendStringInfoChar(&buf, '}');
	fill(spec, tenant, "POST", endpoint_path(tenant, API_CANCEL),
		 psprintf("cancel access request \"%s\"", api_error_text(id)));
	spec->refused_hint = CANCEL_REFUSED_HINT;
	spec->unknown_hint = UNKNOWN_REQUEST_HINT;
	spec->body = buf.data;
}

void
api_bulk_cancel(CallSpec *spec, const Tenant *tenant, const char *const *ids, int nids,
				const char *comment)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_ids(&buf, ids, nids);
	append_member(&buf, "comment", comment);
	appendStringInfoChar(&buf, '}');
	fill(spec, tenant, "POST", endpoint_path(tenant, API_BULK_CANCEL),
		 nids == 1 ? psprintf("cancel access request \"%s\"", api_error_text(ids[0])) :
		 psprintf("cancel %d access requests", nids));
	spec->refused_hint = CANCEL_REFUSED_HINT;
	spec->unknown_hint = UNKNOWN_REQUEST_HINT;
	spec->body = buf.data;
}

static void
check_one_of(const char *name, const char *value, const char *const *allowed, const char *list)
{
	if (!given(value))
		return;
	for (; *allowed != NULL; allowed++)
	{
		if (strcmp(value, *allowed) == 0)
			return;
	}
	refuse(psprintf("invalid %s \"%s\"", name, api_error_text(value)),
		   psprintf("Valid values are %s. A server is named as server => '…'.", list));
}

void
api_check_close(const char *execution_status, const char *completion_status)
{
	static const char *const executions[] = {"Terminated", "Completed", NULL};
	static const char *const completions[] = {"Success", "Incomplete", "Failure", NULL};

	check_one_of("execution_status", execution_status, executions, "Terminated and Completed");
	check_one_of("completion_status", completion_status, completions,
				 "Success, Incomplete and Failure");
}

void
api_close(CallSpec *spec, const Tenant *tenant, const char *const *ids, int nids,
		  const char *message, const char *execution_status, const char *completion_status)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_ids(&buf, ids, nids);
	append_member(&buf, "message", message);
	append_member(&buf, "executionStatus", execution_status);
	append_member(&buf, "completionStatus", completion_status);
	appendStringInfoChar(&buf, '}');
	fill(spec, tenant, "POST", endpoint_path(tenant, API_CLOSE),
		 nids == 1 ? psprintf("close access request \"%s\"", api_error_text(ids[0])) :
		 psprintf("close %d access requests", nids));
	spec->refused_hint = "A close is for requests that are still open; accessreq.status_of() tells. Before approval has passed use accessreq.cancel().";
	spec->unknown_hint = UNKNOWN_REQUEST_HINT;
	spec->body = buf.data;
}

/* ------------------------------------------------------------- configuration */

void
api_get_config(CallSpec *spec, const Tenant *tenant)
{
	fill(spec, tenant, "GET", endpoint_path(tenant, API_CONFIG),
		 pstrdup("read the access request configuration"));
	if (tenant->api == API_V2026)
		spec->header = EXPERIMENTAL_HEADER;
}

void
api_put_config(CallSpec *spec, const Tenant *tenant, const char *body)
{
	fill(spec, tenant, "PUT", endpoint_path(tenant, API_CONFIG),
		 pstrdup("replace the access request configuration"));
	if (tenant->api == API_V2026)
		spec->header = EXPERIMENTAL_HEADER;
	spec->body = body;
}

/* ------------------------------------------------------------------ any GET */

/*
 * A path of the caller's: below base_url, literal.  What may not stand in a
 * path is encoded, "%" too, so that nothing can be smuggled through encoding;
 * what would leave the path is refused.
 */
static char *
checked_path(const char *path)
{
	StringInfoData buf;
	const char *hint = "Write it below base_url with its API version: 'v2024/identities'. Parameters belong in query.";

	while (*path == '/')
		path++;
	if (*path == '\0')
		refuse("the path is empty", hint);
	initStringInfo(&buf);
	appendStringInfoChar(&buf, '/');
	for (const char *p = path; *p; p++)
	{
		unsigned char c = (unsigned char) *p;

		if (c < ' ' || c == 0x7f || strchr("?#\\", c) != NULL)
			refuse("the path holds a character that is not part of a path", hint);
		if (p[0] == '/' && p[1] == '/')
			refuse("the path holds \"//\"", hint);
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			(c >= '0' && c <= '9') || strchr("-._~/:@!$&'()*+,;=", c) != NULL)
			appendStringInfoChar(&buf, c);
		else
			appendStringInfo(&buf, "%%%02X", c);
	}
	for (const char *p = path; p != NULL; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
	{
		size_t		len = strcspn(p, "/");

		/* some gateways take "..;x" for ".." */
		len = Min(len, strcspn(p, ";"));
		if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			refuse("the path holds \".\" or \"..\"", hint);
	}
	if (strstr(path, "://") != NULL)
		refuse("the path is a URL", hint);
	return buf.data;
}

void
api_get(CallSpec *spec, const Tenant *tenant, const char *path, const char *query)
{
	char	   *checked = checked_path(path);

	fill(spec, tenant, "GET", psprintf("%s%s%s", checked, query[0] ? "?" : "", query),
		 psprintf("read \"%s\"", api_error_text(checked)));
	spec->unknown_hint = "Check the path in the vendor's API description; it begins with the API version: 'v2024/identities'.";
	if (tenant->api == API_V2026)
		spec->header = EXPERIMENTAL_HEADER;
}
