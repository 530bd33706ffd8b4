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
#include "miscadmin.h"
#include "session.h"
#include "sql.h"
#include "tenant.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "writer.h"

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

/*
 * resolve_server(server name): the server that an argument means; raises what
 * every function with such an argument does, USAGE included.
 */
Datum
accessreq_resolve_server(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	Oid			serverid = tenant_resolve(name, GetUserId());
	Name		result = palloc0(sizeof(NameData));

	tenant_check_usage(serverid, GetUserId());
	namestrcpy(result, GetForeignServer(serverid)->servername);
	PG_RETURN_NAME(result);
}

/* ------------------------------------------------------- whom a body asks for */

static void
add_person(ArrayBuildState **people, const JsonbValue *value)
{
	if (value != NULL && value->type == jbvString)
		*people = accumArrayResult(*people,
								   PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
																			value->val.string.len)),
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
 * asks; empty for what is none.  For an index on action.
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
	volatile uint64 rows = 0;

	writer_enter_to_read(&state);
	PG_TRY();
	{
		rows = sql_read_latest(plan, sql, args);
	}
	PG_FINALLY();
	{
		writer_leave(&state);
	}
	PG_END_TRY();
	return rows;
}

/* The name of a server that the caller may use. */
static char *
usable_server(FunctionCallInfo fcinfo, int argno)
{
	char	   *server;
	Oid			serverid;

	session_require_arg(fcinfo, argno, "server");
	server = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	serverid = tenant_resolve(server, GetUserId());
	tenant_check_usage(serverid, GetUserId());
	return server;
}

/*
 * acted_requests(server text): access requests of the server that an action of
 * any role is cancelling or closing, or has, or could not: those that are not
 * settled, were accepted within a day (the next pull shows them), were refused
 * within a week, or whose outcome is not known.
 */
Datum
accessreq_acted_requests(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan;
	SqlArgs		args = {0};
	bool		isnull;
	Datum		result;

	sql_add_text(&args, usable_server(fcinfo, 0));
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
						 " AND (state = 'failed' OR (state = 'done'"
						 " AND settled_at > statement_timestamp() - interval '1 day'))"
						 ") a, unnest(a.access_request_ids) d (id) WHERE d.id IS NOT NULL",
						 &args);
	result = SPI_datumTransfer(sql_datum(0, 1, &isnull), false, -1);
	SPI_finish();
	PG_RETURN_DATUM(result);
}

/*
 * A done create counts until its item is here, or a pull that began after the
 * tenant must have listed it found none: the tenant never lists a request for
 * what the person already holds.
 */
#define EQUAL_REQUEST_SQL \
	"SELECT r.access_request_id, 'an equal request is open', 0 AS place, 0::bigint AS id" \
	" FROM accessreq.request_status r" \
	" WHERE r.server = $1 AND r.requested_for_id = $2 AND r.item_type = $3 AND r.item_id = $4" \
	" AND accessreq.is_open(r.state, r.missing_since) AND r.request_type IS DISTINCT FROM 'REVOKE_ACCESS'" \
	" UNION ALL" \
	" SELECT CASE WHEN cardinality(a.access_request_ids) = 1 THEN a.access_request_ids[1] END," \
	" 'an action that asks for it is ' || a.state, 1, a.id" \
	" FROM accessreq.action a" \
	" WHERE a.server = $1 AND a.kind = 'create' AND a.state <> ALL ('{failed,cancelled}')" \
	" AND accessreq.asked_people(a.request) @> ARRAY[$2] AND accessreq.asks_for(a.request, $2, $3, $4)" \
	" AND (a.state <> 'done' OR NOT (EXISTS (SELECT FROM accessreq.request_status s" \
	" WHERE s.server = $1 AND s.access_request_id = ANY (a.access_request_ids)" \
	" AND s.requested_for_id = $2 AND s.item_type = $3 AND s.item_id = $4)" \
	" OR EXISTS (SELECT FROM accessreq.sync_job j WHERE j.server = $1" \
	" AND j.last_success_at > a.settled_at + interval '10 minutes')))" \
	/* what was taken away since may be asked for again */ \
	" AND NOT EXISTS (SELECT FROM accessreq.action v" \
	" WHERE v.server = $1 AND v.kind = 'create' AND v.state <> ALL ('{failed,cancelled}')" \
	" AND accessreq.asked_people(v.request) @> ARRAY[$2] AND v.id > a.id" \
	" AND v.request ->> 'requestType' = 'REVOKE_ACCESS'" \
	" AND accessreq.asks_for(v.request - 'requestType', $2, $3, $4))" \
	" ORDER BY place, id LIMIT 1"

/*
 * equal_request(server, requested_for, item_type, item_id): a planned_action
 * that says what asks for this item for this person already, an open item or an
 * action of any role; null where nothing does.
 */
Datum
accessreq_equal_request(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan;
	static const char *const names[] = {"server", "requested_for", "item_type", "item_id"};
	SqlArgs		args = {0};
	TupleDesc	desc;
	Datum		values[4] = {0};
	bool		nulls[4] = {false, true, true, false};
	char	   *server = usable_server(fcinfo, 0);
	bool		found;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "planned_action is not a row");
	sql_add_text(&args, server);
	for (int i = 1; i < 4; i++)
	{
		session_require_arg(fcinfo, i, names[i]);
		sql_add(&args, TEXTOID, PG_GETARG_DATUM(i), false);
	}
	SPI_connect();
	found = read_as_owner(&plan, EQUAL_REQUEST_SQL, &args) > 0;
	if (found)
	{
		Datum		id = sql_datum(0, 1, &nulls[1]);
		bool		isnull;

		if (!nulls[1])
			values[1] = SPI_datumTransfer(id, false, -1);
		values[3] = SPI_datumTransfer(sql_datum(0, 2, &isnull), false, -1);
	}
	SPI_finish();
	if (!found)
		PG_RETURN_NULL();
	values[0] = CStringGetTextDatum(server);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
