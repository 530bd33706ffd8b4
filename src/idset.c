/*-------------------------------------------------------------------------
 *
 * idset.c
 *	  A set of ids.
 *
 * A hash table of pointers that are compared as the strings they point to:
 * ids have no length that fits all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "idset.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

struct IdSet
{
	MemoryContext cxt;
	HTAB	   *table;
};

typedef struct IdKey
{
	const char *id;
	size_t		len;
} IdKey;

static uint32
hash_key(const void *key, Size size)
{
	const IdKey *k = key;

	return hash_bytes((const unsigned char *) k->id, (int) k->len);
}

static int
match_keys(const void *a, const void *b, Size size)
{
	const IdKey *x = a;
	const IdKey *y = b;

	return x->len == y->len ? memcmp(x->id, y->id, x->len) : 1;
}

IdSet *
idset_create(MemoryContext parent, long about)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "accessreq ids",
											  ALLOCSET_DEFAULT_SIZES);
	IdSet	   *set = MemoryContextAlloc(cxt, sizeof(IdSet));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(IdKey);
	ctl.entrysize = sizeof(IdKey);
	ctl.hash = hash_key;
	ctl.match = match_keys;
	ctl.hcxt = cxt;
	set->cxt = cxt;
	set->table = hash_create("accessreq ids", Max(about, 16), &ctl,
							 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	return set;
}

void
idset_free(IdSet *set)
{
	MemoryContextDelete(set->cxt);
}

bool
idset_add(IdSet *set, const char *id, size_t len)
{
	IdKey		key = {id, len};
	IdKey	   *entry;
	bool		found;

	entry = hash_search(set->table, &key, HASH_ENTER, &found);
	if (!found)
	{
		char	   *copy = MemoryContextAlloc(set->cxt, len + 1);

		memcpy(copy, id, len);
		copy[len] = '\0';
		entry->id = copy;
	}
	return !found;
}

void
idset_remove(IdSet *set, const char *id, size_t len)
{
	IdKey		key = {id, len};

	(void) hash_search(set->table, &key, HASH_REMOVE, NULL);
}

bool
idset_has(const IdSet *set, const char *id, size_t len)
{
	IdKey		key = {id, len};

	return hash_search(set->table, &key, HASH_FIND, NULL) != NULL;
}

long
idset_size(const IdSet *set)
{
	return hash_get_num_entries(set->table);
}

const char **
idset_ids(const IdSet *set)
{
	const char **ids = palloc(sizeof(char *) * Max(idset_size(set), 1));
	HASH_SEQ_STATUS seq;
	IdKey	   *entry;
	long		n = 0;

	hash_seq_init(&seq, set->table);
	while ((entry = hash_seq_search(&seq)) != NULL)
		ids[n++] = entry->id;
	return ids;
}
