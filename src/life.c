/*-------------------------------------------------------------------------
 *
 * life.c
 *	  SQL-callable: the life of a server's rows: adopt, rename_server, forget.
 *
 * Each names its server, which need not exist any more; the rows are found by
 * its name.  The job's owner may, and whoever may act as the tables' owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "action.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "identity.h"
#include "job.h"
#include "miscadmin.h"
#include "session.h"
#include "statement.h"
#include "storage/lmgr.h"
#include "store.h"
#include "tables.h"
#include "tenant.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "workers.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(accessreq_adopt);
PG_FUNCTION_INFO_V1(accessreq_rename_server);
PG_FUNCTION_INFO_V1(accessreq_forget);

/* How long the end of a pull is waited for. */
#define PULL_END_US (5 * USECS_PER_SEC)
#define PULL_POLL_MS 20

static const char *
name_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	session_require_arg(fcinfo, argno, name);
	return NameStr(*PG_GETARG_NAME(argno));
}

/* Run a statement about one or two servers as the tables' owner; rows written. */
static uint64
write_about(const char *sql, const char *first, const char *second)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	WriterState writer;

	values[0] = CStringGetTextDatum(first);
	values[1] = CStringGetTextDatum(second ? second : "");
	writer_enter(&writer);
	statement_check(SPI_execute_with_args(sql, second ? 2 : 1, types, values, NULL, false, 0));
	writer_leave(&writer);
	return SPI_processed;
}

static void
check_may(const char *server, const JobOwner *owner)
{
	if (OidIsValid(owner->role) && has_privs_of_role(GetUserId(), owner->role))
		return;
	if (has_privs_of_role(GetUserId(), writer_tables_owner()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the rows of server \"%s\"", server),
			 errdetail("Only the owner of its job and the owner of the tables may do this."),
			 owner->name ? errhint("The job's owner is role \"%s\".", owner->name) : 0));
}

/*
 * A pull that is under way would write on under the old name; so none must be,
 * and none begins meanwhile.  One that stop_sync() has stopped ends in a moment,
 * once that is committed; others may take hours.
 */
static void
lock_server(const char *server)
{
	Oid			serverid = get_foreign_server_oid(server, true);
	TimestampTz end = GetCurrentTimestamp() + PULL_END_US;

	/* and what is being enqueued for it is there when we look */
	if (OidIsValid(serverid))
		LockDatabaseObject(ForeignServerRelationId, serverid, 0, AccessExclusiveLock);
	while (OidIsValid(serverid) && !store_lock_server(serverid))
	{
		if (GetCurrentTimestamp() >= end)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("server \"%s\" is being pulled by process %d", server,
							job_running_pid(serverid)),
					 errhint("Call accessreq.stop_sync(), commit, and try again; or wait for the CALL accessreq.sync() to end.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 PULL_POLL_MS, compat_wait_event(WAIT_LEAVE));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Here a job goes by its owner's OID; one that comes from elsewhere is the role's
 * that bears the name.  Where there is none it becomes the caller's.
 */
static void
adopt_job(const char *server, const JobOwner *owner)
{
	Oid			role = OidIsValid(owner->role) ? owner->role : GetUserId();
	Oid			types[] = {TEXTOID, TEXTOID, INT4OID, TEXTOID, OIDOID};
	Datum		values[5];
	WriterState writer;

	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(identity_origin());
	values[2] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[3] = CStringGetTextDatum(GetUserNameFromId(role, false));
	values[4] = ObjectIdGetDatum(role);
	writer_enter(&writer);
	/* OIDs of there are strangers' here */
	statement_check(SPI_execute_with_args("UPDATE accessreq.sync_run r SET owner_oid ="
										  " coalesce((SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = r.owner::name), 0)"
										  " FROM accessreq.sync_job j WHERE j.server = $1 AND r.server = $1 AND j.origin <> $2",
										  5, types, values, NULL, false, 0));
	statement_check(SPI_execute_with_args("UPDATE accessreq.sync_job j SET"
										  " server_oid = coalesce((SELECT f.oid FROM pg_catalog.pg_foreign_server f WHERE f.srvname = $1::name),"
										  " CASE WHEN origin = $2 THEN server_oid END),"
										  " held_by_oid = CASE WHEN origin = $2 THEN held_by_oid ELSE (SELECT r.oid"
										  " FROM pg_catalog.pg_roles r WHERE r.rolname = held_by::name) END,"
										  " retry_after_of = CASE WHEN origin = $2 THEN retry_after_of END,"
										  " origin = $2, timeline = $3, owner = $4, owner_oid = $5, next_attempt_at = NULL"
										  " WHERE server = $1",
										  5, types, values, NULL, false, 0));
	writer_leave(&writer);
}

/*
 * Rows come without their sequence where they are replicated or copied one by
 * one: what is numbered from now on must not bear the number of one of them.
 */
static void
go_on_numbering(void)
{
	static const char *const numbered[][3] = {
		{"sync_run", "run_id", "sync_run_run_id_seq"},
		{"action", "id", "action_id_seq"},
	};
	WriterState writer;

	writer_enter(&writer);
	for (int i = 0; i < lengthof(numbered); i++)
		statement_check(SPI_execute(psprintf("SELECT pg_catalog.setval('accessreq.%3$s', m.most)"
											 " FROM (SELECT max(%2$s) AS most FROM accessreq.%1$s) m"
											 " WHERE m.most >= (SELECT last_value + is_called::integer FROM accessreq.%3$s)",
											 numbered[i][0], numbered[i][1], numbered[i][2]), false, 0));
	writer_leave(&writer);
}

/*
 * adopt(server name): this database is from now on the one that pulls for the
 * server and sends what changes its tenant.  The job and its actions are the
 * roles' that bear their owners' names here; where there is none the job becomes
 * the caller's, and the actions fail.  So do those that would have another's
 * dedupe key.  In the database that they come from it gives a job whose owner is
 * gone to the caller.  Raises 42704 where the server has no job.
 */
Datum
accessreq_adopt(PG_FUNCTION_ARGS)
{
	const char *server = name_arg(fcinfo, 0, "server");
	JobOwner	owner;
	const char *origin;

	PreventCommandDuringRecovery("accessreq.adopt()");
	PreventCommandIfReadOnly("accessreq.adopt()");
	SPI_connect();
	owner = job_owner(server);
	if (!owner.found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" has no job", server),
				 errhint("A job is made by the first CALL accessreq.sync().")));
	check_may(server, &owner);
	if (!tenant_is_server(server) && identity_server_name(owner.server, identity_origin()) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", server),
				 errhint("Create it first: its actions are sent to it.")));
	/* a physical copy, or what was recovered to a time before */
	origin = job_origin(server);
	if (origin != NULL && strcmp(origin, identity_origin()) == 0)
		action_after_recovery(server);
	adopt_job(server, &owner);
	action_adopt(server);
	go_on_numbering();
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/*
 * May the rows of "from" become those of "to"?  Its server was renamed, or is gone;
 * and the caller may use the other.
 */
static void
check_rename(const char *from, const char *to, JobOwner *owner, JobOwner *taken)
{
	Oid			serverid = get_foreign_server_oid(to, true);

	*owner = job_owner(from);
	if (!owner->found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" has no job", from)));
	check_may(from, owner);
	if (!tenant_is_server(to))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", to),
				 errhint("First ALTER SERVER %s RENAME TO %s.", quote_identifier(from), quote_identifier(to))));
	if (OidIsValid(get_foreign_server_oid(from, true)) && owner->server != serverid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" was not renamed to \"%s\"", from, to),
				 errdetail("Its rows are another server's than that one's.")));
	if (!has_privs_of_role(GetUserId(), writer_tables_owner()))
		tenant_check_usage(serverid, GetUserId());
	*taken = job_owner(to);
	if (taken->name != NULL)
		check_may(to, taken);
}

/*
 * rename_server(old_name name, new_name name): the rows follow a server that
 * was renamed.  Raises 42704 where it has no job, or no server has the new name;
 * 55000 where it was not renamed; 42501 without USAGE on it; 42710 where there are
 * rows of the new name, 55006 while it is pulled.
 */
Datum
accessreq_rename_server(PG_FUNCTION_ARGS)
{
	const char *from = name_arg(fcinfo, 0, "old_name");
	const char *to = name_arg(fcinfo, 1, "new_name");
	JobOwner	owner;
	JobOwner	taken;
	bool		others;

	PreventCommandDuringRecovery("accessreq.rename_server()");
	PreventCommandIfReadOnly("accessreq.rename_server()");
	SPI_connect();
	check_rename(from, to, &owner, &taken);
	lock_server(from);
	lock_server(to);
	/* as it is by now */
	check_rename(from, to, &owner, &taken);
	job_row_is_gone();
	/* what was tried since the server got its new name has made a job, and no more */
	if (taken.found && !job_give_way(to, from))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg(taken.enabled ? "the job of server \"%s\" is enabled" :
						"server \"%s\" has rows already", to),
				 taken.enabled ? errhint("SELECT accessreq.stop_sync('%s') first.", to) :
				 errhint("accessreq.forget() deletes them, what is queued for it included.")));
	others = action_rename_server(from, to, get_foreign_server_oid(to, false));
	for (int i = 0; i < NUM_EXTENSION_TABLES; i++)
	{
		if (strcmp(extension_tables[i], "action") != 0)
			(void) write_about(psprintf("UPDATE accessreq.%s SET server = $2 WHERE server = $1",
										extension_tables[i]), from, to);
	}
	job_note_server(to);
	/* those of another server that has the old name need a job as well */
	if (others)
		job_insert_ownerless(from);
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/*
 * forget(server name): delete all rows of a server.  Rows (table_name, deleted).
 * Raises 55000 while its job is enabled, 55006 while it is pulled.
 */
Datum
accessreq_forget(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {TEXTOID, INT8OID};
	const char *server = name_arg(fcinfo, 0, "server");
	JobOwner	owner;

	PreventCommandDuringRecovery("accessreq.forget()");
	PreventCommandIfReadOnly("accessreq.forget()");
	session_begin_rows(fcinfo, columns, lengthof(columns));
	SPI_connect();
	owner = job_owner(server);
	check_may(server, &owner);
	if (owner.enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the job of server \"%s\" is not stopped", server),
				 errhint("SELECT accessreq.stop_sync('%s') first.", server)));
	lock_server(server);
	job_row_is_gone();
	for (int i = 0; i < NUM_EXTENSION_TABLES; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		uint64		n = write_about(psprintf("DELETE FROM accessreq.%s WHERE server = $1",
											 extension_tables[i]), server, NULL);

		values[0] = CStringGetTextDatum(extension_tables[i]);
		values[1] = Int64GetDatum((int64) n);
		session_put_row(fcinfo, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}
