/*-------------------------------------------------------------------------
 *
 * footing.c
 *	  What a pull stands on, and whether it still does.
 *
 * A pull takes hours, and holds nothing while it waits for the tenant but a lock
 * that names its server by OID, while the rows go by the server's name.  So the
 * server may be dropped meanwhile, and another made with its name, for another
 * tenant, whose rows the old pull would mix with its own.  Before anything is
 * written all of it is looked at again: what a name stood for must be the same
 * object, and it must still be the role's to use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "footing.h"
#include "miscadmin.h"
#include "sql.h"
#include "storage/lmgr.h"
#include "token.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "writer.h"

/* The job's row: which one it is, and whether the role still owns it. */
static char *
read_job_id(const JobRun *run, bool *is_owner)
{
	WriterState state;
	SqlArgs		args = {0};
	char	   *id = NULL;

	*is_owner = false;
	writer_enter_to_read(&state);
	sql_add_text(&args, run->server);
	sql_add_oid(&args, run->userid);
	if (sql_run("SELECT job_id, coalesce(owner_oid = $2, false) FROM accessreq.sync_job WHERE server = $1",
				&args, SPI_OK_SELECT) > 0)
	{
		id = sql_text(0, 1);
		*is_owner = sql_true(0, 2);
	}
	writer_leave(&state);
	return id;
}

void
footing_note(JobRun *run, const Tenant *tenant, const char *door)
{
	const char *name = token_tenant(tenant);
	bool		is_owner;
	char	   *id = read_job_id(run, &is_owner);

	/* for as long as the run: both contexts are its own */
	run->door = door;
	run->job_id = id ? MemoryContextStrdup(GetMemoryChunkContext(run), id) : NULL;
	run->tenant = name ? MemoryContextStrdup(GetMemoryChunkContext(run), name) : NULL;
}

static void
raise_gone(const JobRun *run, int sqlstate, const char *what)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not go on pulling from server \"%s\": %s", run->server, what),
			 errdetail("What was pulled until then is stored, or was deleted with the rows of the server.")));
}

static void
check_role(const JobRun *run)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(run->userid)))
		raise_gone(run, ERRCODE_UNDEFINED_OBJECT,
				   psprintf("role \"%s\" was dropped since", run->owner));
}

/* The same server, by the same name? */
static void
check_server(const JobRun *run, Oid serverid)
{
	HeapTuple	tuple;
	char	   *name;

	LockDatabaseObject(ForeignServerRelationId, serverid, 0, AccessShareLock);
	tuple = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		raise_gone(run, ERRCODE_UNDEFINED_OBJECT, "it was dropped since");
	name = pstrdup(NameStr(((Form_pg_foreign_server) GETSTRUCT(tuple))->srvname));
	ReleaseSysCache(tuple);
	if (strcmp(name, run->server) != 0)
		raise_gone(run, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   psprintf("it is \"%s\" now; accessreq.rename_server() moves its rows", name));
}

/* The same mapping: not dropped, and no nearer one made? */
static void
check_mapping(const JobRun *run, const Tenant *tenant, const Tenant *now)
{
	LockDatabaseObject(UserMappingRelationId, tenant->umid, 0, AccessShareLock);
	if (!SearchSysCacheExists1(USERMAPPINGOID, ObjectIdGetDatum(tenant->umid)))
		raise_gone(run, ERRCODE_UNDEFINED_OBJECT, "its user mapping was dropped since");
	if (now->umid != tenant->umid)
		raise_gone(run, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "the role has got a user mapping of its own since");
}

static void
check_door(const JobRun *run)
{
	SqlArgs		args = {0};
	WriterState state;
	bool		may;

	writer_enter_to_read(&state);
	sql_add_oid(&args, run->userid);
	sql_add_text(&args, run->door);
	sql_run("SELECT pg_catalog.has_function_privilege($1, $2, 'EXECUTE')", &args, SPI_OK_SELECT);
	may = sql_true(0, 1);
	writer_leave(&state);
	if (!may)
		raise_gone(run, ERRCODE_INSUFFICIENT_PRIVILEGE,
				   psprintf("role \"%s\" has no EXECUTE on %s any more", run->owner, run->door));
}

static void
check_job(const JobRun *run)
{
	bool		is_owner;
	char	   *id = read_job_id(run, &is_owner);

	if (id == NULL || run->job_id == NULL || strcmp(id, run->job_id) != 0)
		raise_gone(run, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "its job, with all rows, was deleted since");
	if (run->is_owner && !is_owner)
		raise_gone(run, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "the job has become another role's");
}

/* Where the token says; one that has expired since says nothing. */
static void
check_tenant(const JobRun *run, const Tenant *tenant)
{
	const char *name = token_tenant(tenant);

	if (name != NULL && run->tenant != NULL && strcmp(name, run->tenant) != 0)
		raise_gone(run, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "its token is for another tenant than when the pull began");
}

/* May a pull go on with the options of now?  With another secret only. */
static bool
leads_to_the_same(const Tenant *a, const Tenant *b)
{
	return strcmp(a->base_url, b->base_url) == 0 && strcmp(a->token_url, b->token_url) == 0 &&
		a->api == b->api;
}

const Tenant *
footing_check(const JobRun *run, const Tenant *tenant, MemoryContext cxt)
{
	MemoryContext step = AllocSetContextCreate(CurTransactionContext, "accessreq footing",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(step);
	const Tenant *now;

	check_server(run, tenant->serverid);
	/* its lock has let us hear of what others have committed */
	check_role(run);
	now = tenant_open(tenant->serverid, run->userid, step);
	check_mapping(run, tenant, now);
	check_door(run);
	check_job(run);
	check_tenant(run, tenant);
	MemoryContextSwitchTo(old);
	if (now != tenant && leads_to_the_same(now, tenant))
		tenant = tenant_open(tenant->serverid, run->userid, cxt);
	MemoryContextDelete(step);
	return tenant;
}
