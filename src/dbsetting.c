/*-------------------------------------------------------------------------
 *
 * dbsetting.c
 *	  Settings of a database: what ALTER DATABASE … SET says now.
 *
 * A process gets them when it connects and never again, so a worker, which is
 * connected for months, has to look for itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_db_role_setting.h"
#include "dbsetting.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"

/* The value of "name" in an array of "name=value", or NULL. */
static char *
find_setting(ArrayType *settings, const char *name)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	size_t		len = strlen(name);

	deconstruct_array(settings, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *setting = nulls[i] ? "" : TextDatumGetCString(elements[i]);

		if (pg_strncasecmp(setting, name, len) == 0 && setting[len] == '=')
			return setting + len + 1;
	}
	return NULL;
}

/* The value of a setting, palloc'd; NULL where it has none. */
static char *
get_setting(const char *name)
{
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *value = NULL;

	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(MyDatabaseId));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(InvalidOid));
	scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true, NULL, 2, keys);
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			value = find_setting(DatumGetArrayTypeP(datum), name);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return value;
}

bool
dbsetting_is_on(const char *name, bool otherwise)
{
	char	   *value = get_setting(name);
	bool		on = otherwise;

	/* ALTER DATABASE has checked it */
	if (value != NULL)
		(void) parse_bool(value, &on);
	return on;
}

bool
dbsetting_is_set(const char *name)
{
	return get_setting(name) != NULL;
}
