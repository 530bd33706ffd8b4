/*-------------------------------------------------------------------------
 *
 * report.c
 *	  SQL-callable: what the report views and the functions for automation need
 *	  of C.
 *
 * Whether somebody has acted on a request, or asked for something, is told over
 * the actions of all roles, which row security hides from the caller: so it is
 * read as the tables' owner, once USAGE on the server was checked, and as it is
 * committed now, so that a transaction under REPEATABLE READ does not do again
 * what another has just done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "item.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "session.h"
#include "sql.h"
#include "tenant.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "writer.h"

/* Letters of an id that an index takes; the tenant's have 36. */
#define MAX_PERSON 255

PG_FUNCTION_INFO_V1(accessreq_parse_time);
PG_FUNCTION_INFO_V1(accessreq_resolve_server);
PG_FUNCTION_INFO_V1(accessreq_asked_people);
PG_FUNCTION_INFO_V1(accessreq_acted_requests);
PG_FUNCTION_INFO_V1(accessreq_equal_request);

/* parse_time(text): a date as the API writes them; null where it is none. */
Datum
accessreq_parse_time(PG_FUNCTION_ARGS)
{
	TimestampTz t = item_parse_time(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (t == ITEM_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(t);
}

/* The server of that name (NULL: as every function resolves it), which the caller may use. */
static Oid
usable_server(const char *name)
{
	Oid			serverid = tenant_resolve(name, GetUserId());

	tenant_check_usage(serverid, GetUserId());
	return serverid;
}

/*
 * resolve_server(server name): the server that an argument means; raises what
 * every function with such an argument does, USAGE included.
 */
Datum
accessreq_resolve_server(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	Oid			serverid = usable_server(name);
	Name		result = palloc0(sizeof(NameData));

	namestrcpy(result, GetForeignServer(serverid)->servername);
	PG_RETURN_NAME(result);
}

/* ------------------------------------------------------- whom a body asks for */

static void
add_person(ArrayBuildState **people, const JsonbValue *value)
{
	int			len;

	if (value == NULL || value->type != jbvString)
		return;
	len = pg_mbcharcliplen(value->val.string.val, value->val.string.len, MAX_PERSON);
	*people = accumArrayResult(*people,
							   PointerGetDatum(cstring_to_text_with_len(value->val.string.val, len)),
							   false, TEXTOID, CurrentMemoryContext);
}

/* An element of either list: an id, or an object with one. */
static void
add_element(ArrayBuildState **people, const JsonbValue *element)
{
	JsonbValue	id;

	if (element->type == jbvBinary && JsonContainerIsObject(element->val.binary.data))
		add_person(people, getKeyJsonValueFromContainer(element->val.binary.data, "identityId",
														strlen("identityId"), &id));
	else
		add_person(people, element);
}

static void
add_list(ArrayBuildState **people, Jsonb *body, const char *key)
{
	JsonbValue	list;

	if (getKeyJsonValueFromContainer(&body->root, key, strlen(key), &list) == NULL ||
		list.type != jbvBinary || !JsonContainerIsArray(list.val.binary.data))
		return;
	for (uint32 i = 0; i < JsonContainerSize(list.val.binary.data); i++)
		add_element(people, getIthJsonbValueFromContainer(list.val.binary.data, i));
}

/*
 * asked_people(request jsonb): ids of the people for whom a body for create()
 * asks, at most 255 letters of each; empty for what is none.  For an index on
 * action, which then finds candidates for asks_for().
 */
Datum
accessreq_asked_people(PG_FUNCTION_ARGS)
{
	Jsonb	   *body = PG_GETARG_JSONB_P(0);
	ArrayBuildState *people = NULL;

	if (JB_ROOT_IS_OBJECT(body))
	{
		add_list(&people, body, "requestedFor");
		add_list(&people, body, "requestedForWithRequestedItems");
	}
	if (people == NULL)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	PG_RETURN_DATUM(makeArrayResult(people, CurrentMemoryContext));
}

/* ------------------------------------------------- what others have done already */

/* As the tables' owner; SPI is connected. */
static uint64
read_as_owner(SPIPlanPtr *plan, const char *sql, SqlArgs *args)
{
	WriterState state;
	uint64		rows;

	writer_enter_to_read(&state);
	sql_go_by_indexes();
	rows = sql_read_latest(plan, sql, args);
	writer_leave(&state);
	return rows;
}

/* The first argument: the name of a server that the caller may use. */
static char *
server_arg(FunctionCallInfo fcinfo)
{
	char	   *server;

	session_require_arg(fcinfo, 0, "server");
	server = text_to_cstring(PG_GETARG_TEXT_PP(0));
	(void) usable_server(server);
	return server;
}

/*
 * acted_requests(server text, kind text): access requests of the server that an
 * action of any role is cancelling or closing, or has: those that are not settled,
 * were accepted within a day (the next pull shows them), or whose outcome is not
 * known.  And those for which the tenant refused an action of this kind within a
 * week: what failed for another reason was never its word, and a 403 is about who
 * asked.
 */
Datum
accessreq_acted_requests(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan;
	SqlArgs		args = {0};
	bool		isnull;
	Datum		result;

	sql_add_text(&args, server_arg(fcinfo));
	session_require_arg(fcinfo, 1, "kind");
	sql_add(&args, TEXTOID, PG_GETARG_DATUM(1), false);
	sql_add_oid(&args, GetUserId());
	SPI_connect();
	(void) read_as_owner(&plan,
						 "SELECT coalesce(array_agg(DISTINCT d.id), '{}') FROM ("
						 "SELECT access_request_ids FROM accessreq.action"
						 " WHERE server = $1 AND settled_at IS NULL"
						 " UNION ALL SELECT access_request_ids FROM accessreq.action"
						 " WHERE server = $1 AND state = 'unknown' AND settled_at IS NOT NULL"
						 " UNION ALL SELECT access_request_ids FROM accessreq.action"
						 " WHERE server = $1 AND kind = ANY ('{cancel,close}')"
						 " AND settled_at > statement_timestamp() - interval '7 days'"
						 " AND ((state = 'failed' AND kind = $2 AND http_status IS NOT NULL"
						 " AND (http_status <> 403 OR (owner_oid = $3 AND origin = (SELECT accessreq.origin()))))"
						 " OR (state = 'done' AND settled_at > statement_timestamp() - interval '1 day'))"
						 ") a, unnest(a.access_request_ids) d (id) WHERE d.id IS NOT NULL",
						 &args);
	result = SPI_datumTransfer(sql_datum(0, 1, &isnull), false, -1);
	SPI_finish();
	PG_RETURN_DATUM(result);
}

/* What asks for $2 at server $1, as action_person_idx finds it. */
#define ASKS_FOR_PERSON(a) \
	a ".server = $1 AND " a ".kind = 'create' AND " a ".state <> ALL ('{failed,cancelled}')" \
	" AND accessreq.asked_people(" a ".request) @> ARRAY[left($2, " CppAsString2(MAX_PERSON) ")]"

/*
 * "pulled": what the tenant had accepted up to then must be in the tables: ten
 * minutes (a request is listed late) before the job's last pull that ended well
 * began; where runs are not kept for so long, an hour before it ended.
 *
 * "asked": what asks for the thing: open items, and creates.  A done create counts
 * until its item is here, or must be and is not: the tenant never lists a request
 * for what the person already holds.
 *
 * "revoke": those that are due and that a pull has not outlived.  One for a day to
 * come, or with a removeDate, takes nothing away now.
 *
 * "judged": what is asked for is being taken back by a later revoke, or when each of
 * its access requests has a cancel or close that a pull has not outlived.  (OFFSET
 * 0: by action_request_idx, not by all that wait or were settled.)  A revoke alone
 * counts, too, for a minute.
 */
#define EQUAL_REQUEST_SQL \
	"WITH pulled AS (SELECT coalesce((SELECT coalesce((SELECT x.started - interval '10 minutes'" \
	" FROM accessreq.sync_run x WHERE x.server = j.server AND x.owner_oid = j.owner_oid" \
	" AND x.started <= j.last_success_at AND x.finished IS NOT NULL AND x.error IS NULL" \
	" ORDER BY x.started DESC LIMIT 1), j.last_success_at - interval '1 hour')" \
	" FROM accessreq.sync_job j WHERE j.server = $1), '-infinity') AS upto" \
	"), asked AS (" \
	"SELECT r.access_request_id, 'an equal request is open' AS reason, 0 AS place, 0::bigint AS id," \
	" ARRAY[r.access_request_id] AS ids, r.created AS at" \
	" FROM accessreq.request_status r" \
	" WHERE r.server = $1 AND r.requested_for_id = $2 AND r.item_type = $3 AND r.item_id = $4" \
	" AND accessreq.is_open(r.state, r.missing_since) AND r.request_type IS DISTINCT FROM 'REVOKE_ACCESS'" \
	" UNION ALL" \
	" SELECT CASE WHEN cardinality(a.access_request_ids) = 1 THEN a.access_request_ids[1] END," \
	" 'an action that asks for it is ' || a.state, 1, a.id, a.access_request_ids, a.enqueued_at" \
	" FROM accessreq.action a, pulled" \
	" WHERE " ASKS_FOR_PERSON("a") " AND accessreq.asks_for(a.request, $2, $3, $4)" \
	" AND (a.state <> 'done' OR (a.settled_at > pulled.upto" \
	" AND NOT EXISTS (SELECT FROM accessreq.request_status s" \
	" WHERE s.server = $1 AND s.access_request_id = ANY (a.access_request_ids)" \
	" AND s.requested_for_id = $2 AND s.item_type = $3 AND s.item_id = $4)))" \
	"), revoke AS (" \
	"SELECT v.id, v.enqueued_at, v.settled_at FROM accessreq.action v, pulled" \
	" WHERE " ASKS_FOR_PERSON("v") " AND v.request ->> 'requestType' = 'REVOKE_ACCESS'" \
	" AND accessreq.asks_for(v.request - 'requestType', $2, $3, $4)" \
	" AND coalesce(v.not_before, v.enqueued_at) <= clock_timestamp()" \
	" AND NOT v.request @? '$.requestedItems[*].removeDate'" \
	" AND (v.settled_at IS NULL OR v.settled_at > pulled.upto)" \
	"), judged AS (" \
	"SELECT q.access_request_id, q.reason, q.place, q.id," \
	" EXISTS (SELECT FROM revoke v WHERE v.enqueued_at > q.at)" \
	" OR coalesce(cardinality(q.ids), 0) > 0 AND NOT EXISTS (SELECT FROM unnest(q.ids) u (id)" \
	" WHERE NOT EXISTS (SELECT FROM (SELECT c.* FROM accessreq.action c" \
	" WHERE c.kind = ANY ('{cancel,close}') AND c.access_request_ids @> ARRAY[u.id] OFFSET 0) v, pulled" \
	" WHERE v.server = $1 AND v.state <> ALL ('{failed,cancelled}')" \
	" AND coalesce(v.not_before, v.enqueued_at) <= clock_timestamp()" \
	" AND (v.settled_at IS NULL OR v.settled_at > pulled.upto))) AS ended" \
	" FROM asked q" \
	" UNION ALL SELECT NULL, NULL, 2, v.id, true FROM revoke v" \
	" WHERE v.settled_at IS NULL OR v.settled_at > clock_timestamp() - interval '1 minute'" \
	") SELECT CASE WHEN NOT ended THEN access_request_id END, CASE WHEN NOT ended THEN reason END," \
	" CASE WHEN ended THEN clock_timestamp() + interval '1 minute' END" \
	" FROM judged ORDER BY ended, place, id LIMIT 1"

/*
 * equal_request(server, requested_for, item_type, item_id): what asks for this item
 * for this person already, an open item or an action of any role, and why that is
 * so; nulls where nothing does.  "not_before" is then when to ask, if not at once:
 * what asked for it is being taken back.
 */
Datum
accessreq_equal_request(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan;
	static const char *const names[] = {"server", "requested_for", "item_type", "item_id"};
	SqlArgs		args = {0};
	static const Oid columns[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};

	sql_add_text(&args, server_arg(fcinfo));
	for (int i = 1; i < 4; i++)
	{
		session_require_arg(fcinfo, i, names[i]);
		sql_add(&args, TEXTOID, PG_GETARG_DATUM(i), false);
	}
	SPI_connect();
	if (read_as_owner(&plan, EQUAL_REQUEST_SQL, &args) > 0)
	{
		for (int i = 0; i < 3; i++)
		{
			Datum		value = sql_datum(0, i + 1, &nulls[i]);

			if (!nulls[i])
				values[i] = SPI_datumTransfer(value, i == 2, i == 2 ? sizeof(TimestampTz) : -1);
		}
	}
	SPI_finish();
	PG_RETURN_DATUM(session_one_row(fcinfo, columns, lengthof(columns), values, nulls));
}
