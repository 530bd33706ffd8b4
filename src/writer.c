/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  Running statements as the owner of the synced tables.
 *
 * Here, and nowhere else, the extension takes an identity that the session
 * does not have.  It is the identity of the tables' owner, never of the
 * bootstrap superuser, and it comes with the fences that VACUUM or REFRESH
 * MATERIALIZED VIEW put up: no change of role, no temporary objects, a
 * search_path in which nobody else can create anything.
 *
 * Users' triggers are run by whoever writes, with this identity.  So there is
 * no way to write without guard.c having looked at them: who enters is either
 * checked or cannot write.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "guard.h"
#include "mode.h"
#include "version.h"
#include "writer.h"

#define WRITER_SCHEMA "accessreq"
#define WRITER_SEARCH_PATH "pg_catalog, pg_temp"

/* The table whose owner counts as the owner of all. */
#define WRITER_OWNER_TABLE "request_status"

#define EXTENSION_NAME "accessreq"

static bool
holds_extension(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	return compat_lock_held_by_me(&tag, AccessShareLock);
}

/*
 * DROP EXTENSION between two of our lookups would leave us with OIDs of tables
 * that are gone.  It wants this lock too, so it waits for our transaction,
 * which is a page long.  Looking for the extension is a scan, so that is done
 * once a transaction, and with it whether its tables are those that we know.
 *
 * Tables without an extension are the tests' of store.c; where there are not
 * even tables, writer_table() says so.
 */
static void
lock_extension(void)
{
	static Oid	extension = InvalidOid;

	if (OidIsValid(extension) && holds_extension(extension))
		return;
	for (;;)
	{
		extension = get_extension_oid(EXTENSION_NAME, true);
		if (!OidIsValid(extension))
			return;
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		/* an extension is never renamed */
		if (version_check(extension))
			return;
		UnlockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	}
}

/*
 * The control file fixes the schema's name, so that name is all we need.
 */
Oid
writer_schema(void)
{
	Oid			schema = get_namespace_oid(WRITER_SCHEMA, true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						EXTENSION_NAME),
				 errhint("Run CREATE EXTENSION accessreq.")));
	return schema;
}

Oid
writer_table(const char *name)
{
	Oid			table;

	lock_extension();
	table = get_relname_relid(name, writer_schema());
	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", WRITER_SCHEMA, name),
				 errhint("Is extension \"%s\" installed in this database?", EXTENSION_NAME)));
	return table;
}

Oid
writer_tables_owner(void)
{
	Oid			table = writer_table(WRITER_OWNER_TABLE);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))	/* dropped since the line before */
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", WRITER_SCHEMA,
						WRITER_OWNER_TABLE)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static void
enter(WriterState *state, Oid owner)
{
	state->read_only = XactReadOnly;
	state->cxt = CurrentMemoryContext;
	GetUserIdAndSecContext(&state->userid, &state->sec_context);
	SetUserIdAndSecContext(owner,
						   state->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	state->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", WRITER_SEARCH_PATH,
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* The check comes first: should it raise, the session is still itself. */
void
writer_enter(WriterState *state)
{
	Oid			owner = writer_tables_owner();

	mode_check_not_upgrading();
	guard_check_triggers(owner);
	enter(state, owner);
}

void
writer_enter_for(WriterState *state, const char *table)
{
	Oid			owner = writer_tables_owner();

	mode_check_not_upgrading();
	guard_check_table(table, owner);
	enter(state, owner);
}

/* What the executor makes of a transaction that was begun READ ONLY. */
void
writer_enter_to_read(WriterState *state)
{
	enter(state, writer_tables_owner());
	XactReadOnly = true;
}

void
writer_leave(const WriterState *state)
{
	AtEOXact_GUC(false, state->guc_level);
	XactReadOnly = state->read_only;
	SetUserIdAndSecContext(state->userid, state->sec_context);
	MemoryContextSwitchTo(state->cxt);
}
