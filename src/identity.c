/*-------------------------------------------------------------------------
 *
 * identity.c
 *	  Who a role, and which a server, in a row is.
 *
 * Rows of jobs and actions have their role's OID and its name.  In the database
 * that wrote them the OID is the role, whatever its name is by now: one that has
 * got an old name since is a stranger.  In a restored or copied database OIDs are
 * strangers', and the name is the role, until accessreq.adopt() has written the
 * OIDs of here.  So it is with servers; but rows that were pulled are found by the
 * server's name alone, until accessreq.rename_server().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "identity.h"
#include "miscadmin.h"
#include "sql.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "writer.h"

char *
identity_origin(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

/* A row without an origin is nobody's. */
static bool
is_from_here(const char *origin)
{
	return origin != NULL && strcmp(origin, identity_origin()) == 0;
}

Oid
identity_role(const char *name, Oid oid, const char *origin)
{
	if (name == NULL)
		return InvalidOid;
	if (!is_from_here(origin))
		return get_role_oid(name, true);
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(oid)) ? oid : InvalidOid;
}

Oid
identity_server(const char *name, Oid oid, const char *origin)
{
	if (identity_server_name(oid, origin) != NULL)
		return oid;
	return get_foreign_server_oid(name, true);
}

char *
identity_server_name(Oid oid, const char *origin)
{
	ForeignServer *server;

	if (!OidIsValid(oid) || !is_from_here(origin))
		return NULL;
	server = GetForeignServerExtended(oid, FSV_MISSING_OK);
	return server ? server->servername : NULL;
}

void
identity_refresh_jobs(void)
{
	static const char *const statements[] = {
		"UPDATE accessreq.sync_job t SET owner = r.rolname FROM pg_catalog.pg_roles r"
		" WHERE t.origin = $1 AND r.oid = t.owner_oid AND r.rolname <> t.owner::name",
		"UPDATE accessreq.sync_job t SET held_by = r.rolname FROM pg_catalog.pg_roles r"
		" WHERE t.origin = $1 AND r.oid = t.held_by_oid AND r.rolname <> t.held_by::name",
		"UPDATE accessreq.sync_run t SET owner = r.rolname FROM pg_catalog.pg_roles r, accessreq.sync_job j"
		" WHERE j.server = t.server AND j.origin = $1 AND r.oid = t.owner_oid AND r.rolname <> t.owner::name",
	};
	WriterState state;

	writer_enter(&state);
	for (int i = 0; i < lengthof(statements); i++)
	{
		SqlArgs		args = {0};

		sql_add_text(&args, identity_origin());
		(void) sql_run(statements[i], &args, SPI_OK_UPDATE);
	}
	writer_leave(&state);
}

/* What somebody has locked keeps its old name until the next walk. */
int64
identity_refresh_actions(int64 from, int ids)
{
	WriterState state;
	SqlArgs		args = {0};
	SqlArgs		rest = {0};
	int64		next = -1;

	writer_enter_for(&state, "action");
	sql_add_text(&args, identity_origin());
	sql_add_int8(&args, from);
	sql_add_int8(&args, from + ids);
	(void) sql_run("UPDATE accessreq.action t SET owner = r.rolname FROM pg_catalog.pg_roles r"
				   " WHERE r.oid = t.owner_oid AND t.id = ANY (ARRAY(SELECT a.id FROM accessreq.action a"
				   " JOIN pg_catalog.pg_roles o ON o.oid = a.owner_oid WHERE a.id >= $2 AND a.id < $3"
				   " AND a.origin = $1 AND o.rolname <> a.owner::name FOR UPDATE OF a SKIP LOCKED))",
				   &args, SPI_OK_UPDATE);
	sql_add_int8(&rest, from + ids);
	if (sql_run("SELECT id FROM accessreq.action WHERE id >= $1 ORDER BY id LIMIT 1",
				&rest, SPI_OK_SELECT) > 0)
		next = sql_int(0, 1);
	writer_leave(&state);
	return next;
}
