/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  SQL-callable: calls that belong to the caller's transaction.
 *
 * What they are given is checked as the immediate calls check it, by the same
 * functions, and the body is the one that those would send.  Nothing leaves
 * here: a row is written, which the worker sees once it is committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "action.h"
#include "api.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "job.h"
#include "mark.h"
#include "miscadmin.h"
#include "mode.h"
#include "row.h"
#include "session.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "workers.h"

PG_FUNCTION_INFO_V1(accessreq_check_enqueue);
PG_FUNCTION_INFO_V1(accessreq_enqueue_create);
PG_FUNCTION_INFO_V1(accessreq_enqueue_cancel);
PG_FUNCTION_INFO_V1(accessreq_enqueue_close);
PG_FUNCTION_INFO_V1(accessreq_enqueue_merge_config);
PG_FUNCTION_INFO_V1(accessreq_retry_action);
PG_FUNCTION_INFO_V1(accessreq_cancel_action);
PG_FUNCTION_INFO_V1(accessreq_wait_for_action);
PG_FUNCTION_INFO_V1(accessreq_hold_actions);
PG_FUNCTION_INFO_V1(accessreq_release_actions);

/* wait_for_action() looks after so many ms, and then less and less often. */
#define FIRST_LOOK_MS 2
#define LAST_LOOK_MS 100

/* What is longer does not fit an index; the tenant's ids have 36 bytes at most. */
#define MAX_KEY_BYTES 1000

/*
 * objsubid of the locks on a server by which those who look before they enqueue
 * wait for each other: to ask for access, or to end requests.  0 is DROP SERVER's;
 * 1 and 2 are a pull's and a page's (store.h).
 */
#define ASK_LOCK 3
#define END_LOCK 4

/* ------------------------------------------------------------------- enqueueing */

/*
 * The tenant of argument "argno", with the rights that the worker will check
 * again.  DROP SERVER waits for the end of the transaction: what is enqueued
 * has a server.
 */
static const Tenant *
look_at_tenant(FunctionCallInfo fcinfo, int argno)
{
	const char *name = PG_ARGISNULL(argno) ? NULL : NameStr(*PG_GETARG_NAME(argno));
	Oid			serverid = session_resolve(name);

	LockDatabaseObject(ForeignServerRelationId, serverid, 0, AccessShareLock);
	if (!SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(serverid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the server was dropped by a concurrent transaction")));
	return tenant_open(serverid, GetUserId(), CurrentMemoryContext);
}

/* The same for what will change it. */
static const Tenant *
open_tenant(FunctionCallInfo fcinfo, int argno, const char *what)
{
	const Tenant *tenant = look_at_tenant(fcinfo, argno);

	call_check_may_change(tenant, what);
	return tenant;
}

static void
check_length(const char *what, const char *text)
{
	if (text != NULL && strlen(text) > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is longer than %d bytes", what, MAX_KEY_BYTES)));
}

/* Arguments from "argno" on: not_before, dedupe_key. */
static Datum
enqueue(FunctionCallInfo fcinfo, int argno, NewAction *action, const Tenant *tenant)
{
	int64		id;

	action->server = tenant->server;
	action->server_oid = tenant->serverid;
	action->owner = tenant->userid;
	action->not_before = PG_ARGISNULL(argno) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(argno);
	action->dedupe_key = PG_ARGISNULL(argno + 1) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(argno + 1));
	check_length("dedupe_key", action->dedupe_key);
	SPI_connect();
	if (job_ensure(tenant->server))
		action_after_recovery(tenant->server);
	id = action_enqueue(action);
	SPI_finish();
	/* once in a transaction */
	if (workers_wake_at_commit(MyDatabaseId))
		session_warn_without_worker("no worker runs in this database, so nothing is sent yet");
	PG_RETURN_INT64(id);
}

/*
 * check_enqueue(kind text, server name, wait boolean): for who looks before he
 * enqueues a create, cancel or close.  Raises what enqueueing it would because of
 * the server, and 22023 for another kind.  With "wait", transactions that do so with
 * the same server wait for each other's end, so that the second sees what the first
 * has enqueued; not an advisory lock, which anybody could take.
 */
Datum
accessreq_check_enqueue(PG_FUNCTION_ARGS)
{
	const Tenant *tenant;
	const char *kind;

	session_require_arg(fcinfo, 0, "kind");
	session_require_arg(fcinfo, 1, "server");
	session_require_arg(fcinfo, 2, "wait");
	kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strcmp(kind, "create") != 0 && strcmp(kind, "cancel") != 0 && strcmp(kind, "close") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no kind of action that is looked for", kind),
				 errhint("One of create, cancel, close.")));
	tenant = look_at_tenant(fcinfo, 1);
	if (PG_GETARG_BOOL(2))
		call_check_may_change(tenant, "enqueue for the tenant");
	else
		call_check_not_read_only(tenant, "enqueue for the tenant");
	if (strcmp(kind, "close") == 0)
		api_check_has(tenant, API_CLOSE);
	SPI_connect();
	job_check_origin(tenant->server);
	SPI_finish();
	if (PG_GETARG_BOOL(2))
		LockDatabaseObject(ForeignServerRelationId, tenant->serverid,
						   strcmp(kind, "create") == 0 ? ASK_LOCK : END_LOCK, ExclusiveLock);
	PG_RETURN_VOID();
}

/* The key by which a create is found again must be ours. */
static void
check_no_token(const JsonValue *items)
{
	for (const JsonValue *i = json_first(items); i != NULL; i = json_next(i))
	{
		if (json_get(json_get(i, "clientMetadata"), MARK_KEY) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("clientMetadata of a requested item has the key \"%s\", which is reserved",
							MARK_KEY)));
	}
}

/*
 * enqueue_create(request jsonb, not_before, dedupe_key, server): as create(),
 * after the commit.  Raises what create() would before it sends.
 */
Datum
accessreq_enqueue_create(PG_FUNCTION_ARGS)
{
	NewAction	action = {0};
	const JsonValue *body;
	const JsonValue *pairs;

	session_require_arg(fcinfo, 0, "request");
	body = session_parse(session_jsonb_arg(fcinfo, 0));
	api_check_create(body);
	pairs = json_get(body, "requestedForWithRequestedItems");
	check_no_token(json_get(body, "requestedItems"));
	for (const JsonValue *p = json_first(pairs); p != NULL; p = json_next(p))
		check_no_token(json_get(p, "requestedItems"));
	action.kind = ACTION_CREATE;
	action.client_token = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
	action.request = mark_items(PG_GETARG_JSONB_P(0),
								DatumGetCString(DirectFunctionCall1(uuid_out, action.client_token)));
	return enqueue(fcinfo, 1, &action, open_tenant(fcinfo, 3, "create an access request"));
}

/* Ids in the server's encoding, as they will be compared. */
static Datum
ids_datum(char **ids, int nids)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(nids, 1));

	for (int i = 0; i < nids; i++)
	{
		check_length("an id", ids[i]);
		elements[i] = row_text(ids[i], strlen(ids[i]));
	}
	return PointerGetDatum(construct_array(elements, nids, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * enqueue_cancel(access_request_id text, comment text, not_before, dedupe_key,
 * server): as cancel(), after the commit.  Raises what cancel() would before it
 * sends, and 23505 where another role's cancel of it is not settled.
 */
Datum
accessreq_enqueue_cancel(PG_FUNCTION_ARGS)
{
	char	   *id = session_id_arg(fcinfo, 0, "access_request_id");
	char	   *comment = session_text_arg(fcinfo, 1);
	NewAction	action = {0};
	const Tenant *tenant;
	CallSpec	spec;

	api_check_comment(comment);
	tenant = open_tenant(fcinfo, 4, "cancel an access request");
	api_cancel(&spec, tenant, id, comment);
	action.kind = ACTION_CANCEL;
	action.request = row_jsonb(spec.body, strlen(spec.body));
	action.ids = ids_datum(&id, 1);
	return enqueue(fcinfo, 2, &action, tenant);
}

/*
 * enqueue_close(access_request_ids text[], message, execution_status,
 * completion_status, not_before, dedupe_key, server): as close(), after the
 * commit, one call.  Raises 22023 for none and for more than it takes.
 */
Datum
accessreq_enqueue_close(PG_FUNCTION_ARGS)
{
	NewAction	action = {0};
	const Tenant *tenant;
	CallSpec	spec;
	char	   *execution = session_text_arg(fcinfo, 2);
	char	   *completion = session_text_arg(fcinfo, 3);
	char	  **ids;
	int			nids;

	api_check_close(execution, completion);
	ids = session_ids_arg(fcinfo, 0, &nids);
	if (nids < 1 || nids > API_MAX_CLOSE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("one close takes 1 to %d access requests, not %d", API_MAX_CLOSE, nids),
				 nids > 0 ? errhint("Enqueue several, each with a part of them.") : 0));
	tenant = open_tenant(fcinfo, 6, "close access requests");
	api_close(&spec, tenant, (const char *const *) ids, nids, session_text_arg(fcinfo, 1),
			  execution, completion);
	action.kind = ACTION_CLOSE;
	action.request = row_jsonb(spec.body, strlen(spec.body));
	action.ids = ids_datum(ids, nids);
	return enqueue(fcinfo, 4, &action, tenant);
}

/*
 * enqueue_merge_config(patch jsonb, not_before, dedupe_key, server): as
 * merge_config(), after the commit; merged when it is sent.
 */
Datum
accessreq_enqueue_merge_config(PG_FUNCTION_ARGS)
{
	NewAction	action = {0};

	action.request = JsonbPGetDatum(session_object_arg(fcinfo, 0, "patch"));
	/* that it can be sent at all */
	(void) session_parse(session_jsonb_arg(fcinfo, 0));
	action.kind = ACTION_MERGE_CONFIG;
	return enqueue(fcinfo, 1, &action,
				   open_tenant(fcinfo, 3, "replace the access request configuration"));
}

/* ---------------------------------------------------------------- one of them */

static int64
action_arg(FunctionCallInfo fcinfo, const char *command)
{
	PreventCommandDuringRecovery(command);
	PreventCommandIfReadOnly(command);
	session_require_arg(fcinfo, 0, "id");
	return PG_GETARG_INT64(0);
}

/*
 * retry_action(id bigint): send one again that failed or is unknown.  Raises
 * 42704 for an unknown id, 55000 for another state, 23505 where a newer action
 * holds its dedupe key or cancels the same request.
 */
Datum
accessreq_retry_action(PG_FUNCTION_ARGS)
{
	int64		id = action_arg(fcinfo, "accessreq.retry_action()");

	SPI_connect();
	action_retry(id);
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/*
 * cancel_action(id bigint): take it out of the queue; false where it is not
 * queued any more.  Raises 42704 for an unknown id.
 */
Datum
accessreq_cancel_action(PG_FUNCTION_ARGS)
{
	int64		id = action_arg(fcinfo, "accessreq.cancel_action()");
	bool		cancelled;

	SPI_connect();
	cancelled = action_cancel(id);
	SPI_finish();
	/* another may have waited for it */
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_BOOL(cancelled);
}

static Datum
state_row(FunctionCallInfo fcinfo, const char *state)
{
	static const Oid columns[] = {TEXTOID};
	Datum		value = CStringGetTextDatum(state);
	bool		isnull = false;

	return session_one_row(fcinfo, columns, lengthof(columns), &value, &isnull);
}

static TimestampTz
deadline(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   PG_GETARG_DATUM(argno)));
}

/* Nobody else runs where no worker may. */
static void
check_may_be_settled(int64 id, const char *state)
{
	const char *why = mode_why_no_worker();

	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("action " INT64_FORMAT " is %s, and no worker settles it: %s", id, state, why)));
}

/*
 * wait_for_action(id bigint, timeout interval, INOUT state text): commit, and
 * wait until it is settled, or for so long (null: for ever).  Raises 25001
 * where nothing can be committed, 42704 for an unknown id, 55000 where it would
 * wait in vain.
 */
Datum
accessreq_wait_for_action(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = CurrentMemoryContext;
	MemoryContext look = AllocSetContextCreate(cxt, "accessreq look at an action",
											   ALLOCSET_SMALL_SIZES);
	TimestampTz end;
	long		pause = FIRST_LOOK_MS;
	char	   *state;
	bool		settled;
	int64		id;

	session_require_arg(fcinfo, 0, "id");
	id = PG_GETARG_INT64(0);
	session_check_may_commit(fcinfo, "accessreq.wait_for_action",
							 "What it waits for is sent after a commit. All that one psql -c is given is one transaction.");
	end = deadline(fcinfo, 1);
	session_warn_without_worker("no worker runs in this database, so nothing is sent");
	for (;;)
	{
		long		left;

		MemoryContextSwitchTo(look);
		/* connected for each look, so that it leaves nothing behind */
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		SPI_commit();
		state = MemoryContextStrdup(cxt, action_state(id, &settled));
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		/* nothing is held while it waits */
		SPI_commit();
		SPI_finish();
		MemoryContextSwitchTo(cxt);
		MemoryContextReset(look);
		if (settled || left <= 0)
			break;
		check_may_be_settled(id, state);
		pfree(state);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(pause, left), compat_wait_event(WAIT_ACTION));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		pause = Min(pause * 2, LAST_LOOK_MS);
	}
	return state_row(fcinfo, state);
}

/* ------------------------------------------------------------- hold and release */

static int
hold_all(bool hold)
{
	List	   *servers = job_servers_to_hold(GetUserId());
	ListCell   *cell;
	int			changed = 0;

	if (servers == NIL)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("role \"%s\" may hold the actions of no server",
						GetUserNameFromId(GetUserId(), false)),
				 errhint("It must be a member of the owner of the server's job, or have USAGE on a server whose job is nobody's.")));
	foreach(cell, servers)
		changed += job_hold(lfirst(cell), GetUserId(), hold);
	return changed;
}

/* One that is named need not exist any more, if it has a job. */
static int
hold_one(const char *server, bool hold)
{
	JobOwner	owner = job_owner(server);

	if (owner.name == NULL && OidIsValid(owner.server))
		tenant_check_usage(owner.server, GetUserId());
	else if (owner.name == NULL)
		tenant_check_usage(tenant_resolve(server, GetUserId()), GetUserId());
	job_check_may_hold(server);
	return job_hold(server, GetUserId(), hold);
}

static Datum
hold_or_release(FunctionCallInfo fcinfo, const char *command, bool hold)
{
	int			changed;

	PreventCommandDuringRecovery(command);
	PreventCommandIfReadOnly(command);
	SPI_connect();
	changed = PG_ARGISNULL(0) ? hold_all(hold) : hold_one(NameStr(*PG_GETARG_NAME(0)), hold);
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_INT32(changed);
}

/*
 * hold_actions(server name), release_actions(server name): NULL means every
 * server that the caller may hold.  Return how many servers that changed; raise
 * 42501 where the job is another's, or the caller may not use the server.
 */
Datum
accessreq_hold_actions(PG_FUNCTION_ARGS)
{
	return hold_or_release(fcinfo, "accessreq.hold_actions()", true);
}

Datum
accessreq_release_actions(PG_FUNCTION_ARGS)
{
	return hold_or_release(fcinfo, "accessreq.release_actions()", false);
}
