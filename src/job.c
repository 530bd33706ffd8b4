/*-------------------------------------------------------------------------
 *
 * job.c
 *	  The rows of sync_job and sync_run: whose pull it is, where it stands, and
 *	  how it ended.
 *
 * A server has one job, whose owner is the first who pulled it.  Only a pull
 * with the owner's mapping moves the job's marks: a token with fewer rights
 * sees fewer rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "job.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "row.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "writer.h"

#define MAX_ARGS 16

/* Arguments of a statement, built up one by one. */
typedef struct Args
{
	int			n;
	Oid			types[MAX_ARGS];
	Datum		values[MAX_ARGS];
	char		nulls[MAX_ARGS];
} Args;

static void
add_arg(Args *args, Oid type, Datum value, bool isnull)
{
	Assert(args->n < MAX_ARGS);
	args->types[args->n] = type;
	args->values[args->n] = value;
	args->nulls[args->n] = isnull ? 'n' : ' ';
	args->n++;
}

static void
add_text(Args *args, const char *text)
{
	add_arg(args, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
add_int8(Args *args, int64 value)
{
	add_arg(args, INT8OID, Int64GetDatum(value), false);
}

static uint64
run_sql(const char *sql, Args *args, int expected)
{
	int			rc = SPI_execute_with_args(sql, args->n, args->types, args->values,
										   args->nulls, false, 0);

	if (rc != expected)
		elog(ERROR, "unexpected result %d of a statement on sync_job or sync_run", rc);
	return SPI_processed;
}

/* A column of the first row of the last result, palloc'd in the caller's. */
static char *
result_text(int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
	char	   *copy = NULL;

	if (value != NULL)
	{
		copy = SPI_palloc(strlen(value) + 1);
		strcpy(copy, value);
	}
	return copy;
}

/* --------------------------------------------------------------------- the job */

/* Which database this is: a restored or copied one is another. */
char *
job_origin_here(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

/* A token is UTF-8, options and tables are in the server's encoding. */
const char *
job_tenant_name(const Tenant *tenant, const char *token_says)
{
	return token_says != NULL ? row_cstring(token_says) : tenant->host;
}

/*
 * Make the job's row, or give one without an owner to the caller.  The pull's
 * lock is held, so no other pull does the same now.
 */
static void
claim_job(const Tenant *tenant)
{
	Args		args = {0};

	add_text(&args, tenant->server);
	add_text(&args, GetUserNameFromId(tenant->userid, false));
	add_arg(&args, OIDOID, ObjectIdGetDatum(tenant->userid), false);
	add_text(&args, job_origin_here());
	run_sql("INSERT INTO accessreq.sync_job AS j (server, owner, owner_oid, origin)"
			" VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (server) DO UPDATE SET owner = $2, owner_oid = $3"
			" WHERE j.owner IS NULL", &args, SPI_OK_INSERT);
}

typedef struct JobRow
{
	bool		found;
	bool		is_owner;
	bool		keep_raw;
	char	   *tenant;
} JobRow;

static JobRow
read_job(const char *server, Oid userid)
{
	JobRow		row = {0};
	Args		args = {0};

	row.keep_raw = true;
	add_text(&args, server);
	add_arg(&args, OIDOID, ObjectIdGetDatum(userid), false);
	add_text(&args, OidIsValid(userid) ? GetUserNameFromId(userid, false) : "");
	if (run_sql("SELECT keep_raw, tenant,"
				" coalesce(owner_oid = $2 AND owner = $3, false)"
				" FROM accessreq.sync_job WHERE server = $1", &args, SPI_OK_SELECT) == 0)
		return row;
	row.found = true;
	row.keep_raw = strcmp(result_text(1), "t") == 0;
	row.tenant = result_text(2);
	row.is_owner = strcmp(result_text(3), "t") == 0;
	return row;
}

/* Another tenant under the same name would be a mixture of two. */
static void
check_tenant(const Tenant *tenant, const char *known, const char *name)
{
	if (known == NULL || strcmp(known, name) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("server \"%s\" leads to another tenant than the one its rows came from",
					tenant->server),
			 errdetail("The rows are of tenant \"%s\", the token is for \"%s\".", known, name),
			 errhint("Create another server for the other tenant. doc/operations.md says how to delete all rows of a server.")));
}

void
job_check_tenant(const Tenant *tenant, const char *tenant_name)
{
	const char *name = job_tenant_name(tenant, tenant_name);
	WriterState state;
	JobRow		row;

	writer_enter_to_read(&state);
	row = read_job(tenant->server, InvalidOid);
	writer_leave(&state);
	check_tenant(tenant, row.tenant, name);
}

bool
job_keep_raw(const char *server)
{
	WriterState state;
	bool		keep_raw;

	writer_enter_to_read(&state);
	keep_raw = read_job(server, InvalidOid).keep_raw;
	writer_leave(&state);
	return keep_raw;
}

char *
job_origin(const char *server)
{
	WriterState state;
	Args		args = {0};
	char	   *origin = NULL;

	writer_enter_to_read(&state);
	add_text(&args, server);
	if (run_sql("SELECT origin FROM accessreq.sync_job WHERE server = $1",
				&args, SPI_OK_SELECT) > 0)
		origin = result_text(1);
	writer_leave(&state);
	return origin;
}

static void
remember_tenant(const char *server, const char *name)
{
	Args		args = {0};

	add_text(&args, server);
	add_text(&args, name);
	run_sql("UPDATE accessreq.sync_job SET tenant = $2 WHERE server = $1 AND tenant IS NULL",
			&args, SPI_OK_UPDATE);
}

/* --------------------------------------------------------------------- the run */

/*
 * The cursor of the owner's last run, or NULL where that run is
 * complete.  One that an error ended can be taken up as well as one that
 * nobody ended.
 */
static char *
last_cursor(const char *server, const char *owner)
{
	Args		args = {0};
	char	   *cursor = NULL;

	add_text(&args, server);
	add_text(&args, owner);
	if (run_sql("SELECT CASE WHEN finished IS NULL OR error IS NOT NULL THEN cursor::text END"
				" FROM accessreq.sync_run"
				" WHERE server = $1 AND owner = $2 AND kind = 'full'"
				" ORDER BY run_id DESC LIMIT 1", &args, SPI_OK_SELECT) > 0)
		cursor = result_text(1);
	return cursor;
}

/*
 * End the runs that nobody ended, whosever they are: we hold the pull's lock,
 * so their processes are gone, and nobody should be told to wait for them.
 */
static void
close_old_runs(const char *server)
{
	Args		args = {0};

	add_text(&args, server);
	run_sql("UPDATE accessreq.sync_run"
			" SET finished = pg_catalog.clock_timestamp(), error = 'interrupted'"
			" WHERE server = $1 AND finished IS NULL", &args, SPI_OK_UPDATE);
}

static int64
insert_run(const Tenant *tenant, const char *cursor, TimestampTz started)
{
	Args		args = {0};

	add_text(&args, tenant->server);
	add_text(&args, GetUserNameFromId(tenant->userid, false));
	add_arg(&args, INT4OID, Int32GetDatum(MyProcPid), false);
	add_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(started), false);
	add_text(&args, cursor);
	run_sql("INSERT INTO accessreq.sync_run (server, owner, pid, kind, started, cursor)"
			" VALUES ($1, $2, $3, 'full', $4, $5::pg_catalog.jsonb) RETURNING run_id",
			&args, SPI_OK_INSERT_RETURNING);
	return strtoll(result_text(1), NULL, 10);
}

JobRun *
job_begin(const Tenant *tenant, const char *tenant_name, bool full_scan)
{
	JobRun	   *run = palloc0(sizeof(JobRun));
	MemoryContext cxt = CurrentMemoryContext;
	const char *name = job_tenant_name(tenant, tenant_name);
	char	   *cursor = NULL;
	WriterState state;
	JobRow		job;

	writer_enter(&state);
	claim_job(tenant);
	job = read_job(tenant->server, tenant->userid);
	check_tenant(tenant, job.tenant, name);
	if (job.is_owner)
	{
		if (job.tenant == NULL)
			remember_tenant(tenant->server, name);
		if (!full_scan)
			cursor = last_cursor(tenant->server, GetUserNameFromId(tenant->userid, false));
	}
	close_old_runs(tenant->server);
	run->started = GetCurrentTimestamp();
	run->run_id = insert_run(tenant, cursor, run->started);
	writer_leave(&state);

	run->server = MemoryContextStrdup(cxt, tenant->server);
	run->is_owner = job.is_owner;
	run->keep_raw = job.keep_raw;
	/* as pull_cursor() wrote it */
	if (cursor != NULL)
		run->cursor = MemoryContextStrdup(cxt, pg_server_to_any(cursor, strlen(cursor), PG_UTF8));
	return run;
}

/* $1 is the run; the numbers follow in the order of UPDATE_RUN. */
#define UPDATE_RUN \
	"UPDATE accessreq.sync_run SET pages = $2, requests = $3, rows_seen = $4," \
	" rows_new = $5, rows_changed = $6, rows_quarantined = $7," \
	" replaced_characters = $8, rate_limited_waits = $9"

static void
add_counts(Args *args, const JobRun *run, const CallCounts *calls)
{
	add_int8(args, run->run_id);
	add_int8(args, run->pages);
	add_int8(args, calls->requests);
	add_int8(args, run->counts.seen);
	add_int8(args, run->counts.added);
	add_int8(args, run->counts.changed);
	add_int8(args, run->counts.quarantined);
	add_int8(args, run->counts.replaced);
	add_int8(args, calls->limited);
}

void
job_note_page(const JobRun *run, const CallCounts *calls, const char *cursor)
{
	Args		args = {0};
	WriterState state;

	writer_enter(&state);
	add_counts(&args, run, calls);
	add_arg(&args, TEXTOID, row_text(cursor, strlen(cursor)), false);
	run_sql(UPDATE_RUN ", cursor = $10::pg_catalog.jsonb WHERE run_id = $1", &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

static void
note_job_result(const JobRun *run, const char *error)
{
	Args		args = {0};

	add_text(&args, run->server);
	add_text(&args, error);
	/* one that was taken up has read its first rows long ago */
	add_arg(&args, BOOLOID, BoolGetDatum(run->cursor == NULL), false);
	run_sql("UPDATE accessreq.sync_job SET last_error = $2,"
			" failures = CASE WHEN $2 IS NULL THEN 0 ELSE failures + 1 END,"
			" last_success_at = CASE WHEN $2 IS NULL THEN pg_catalog.clock_timestamp()"
			" ELSE last_success_at END,"
			" last_scan_at = CASE WHEN $2 IS NULL AND $3 THEN pg_catalog.clock_timestamp()"
			" ELSE last_scan_at END"
			" WHERE server = $1", &args, SPI_OK_UPDATE);
}

void
job_finish(const JobRun *run, const CallCounts *calls, const char *error)
{
	Args		args = {0};
	WriterState state;

	writer_enter(&state);
	add_counts(&args, run, calls);
	add_text(&args, error);
	run_sql(UPDATE_RUN ", finished = pg_catalog.clock_timestamp(), error = $10"
			" WHERE run_id = $1", &args, SPI_OK_UPDATE);
	if (run->is_owner)
		note_job_result(run, error);
	writer_leave(&state);
}

int
job_running_pid(const char *server)
{
	WriterState state;
	Args		args = {0};
	char	   *pid = NULL;

	writer_enter_to_read(&state);
	add_text(&args, server);
	if (run_sql("SELECT pid FROM accessreq.sync_run WHERE server = $1 AND finished IS NULL"
				" ORDER BY run_id DESC LIMIT 1", &args, SPI_OK_SELECT) > 0)
		pid = result_text(1);
	writer_leave(&state);
	return pid ? atoi(pid) : 0;
}
