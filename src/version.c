/*-------------------------------------------------------------------------
 *
 * version.c
 *	  Does the extension in this database suit the library?
 *
 * A new library comes with the package, the tables that it is made for with
 * ALTER EXTENSION UPDATE; a library that is preloaded stays until a restart,
 * whatever is done to the tables.  In between neither may a statement of ours
 * be taken for one on other tables, nor anything be sent of which they are to
 * keep account.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "accessreq.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "version.h"

/* What the catalog says, palloc'd; NULL where it is gone. */
static char *
read_version(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(datum);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

bool
version_is_ours(Oid extension)
{
	char	   *version = read_version(extension);
	bool		ours = version != NULL && strcmp(version, ACCESSREQ_VERSION) == 0;

	if (version != NULL)
		pfree(version);
	return ours;
}

bool
version_check(Oid extension)
{
	char	   *version = read_version(extension);

	if (version == NULL)
		return false;
	/* the versions in between are gone through one by one, by their scripts */
	if (strcmp(version, ACCESSREQ_VERSION) != 0 &&
		!(creating_extension && CurrentExtensionObject == extension))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"accessreq\" has version %s in this database, its library version %s",
						version, ACCESSREQ_VERSION),
				 errhint("Run ALTER EXTENSION accessreq UPDATE; where the library is the older one, restart the server.")));
	pfree(version);
	return true;
}
