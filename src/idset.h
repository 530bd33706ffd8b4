/*-------------------------------------------------------------------------
 *
 * idset.h
 *	  A set of ids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_IDSET_H
#define ACCESSREQ_IDSET_H

#include "postgres.h"

typedef struct IdSet IdSet;

/* In a context of its own under "parent"; "about" ids are expected. */
extern IdSet *idset_create(MemoryContext parent, long about);
extern void idset_free(IdSet *set);

/* False where it was there already; the id is copied. */
extern bool idset_add(IdSet *set, const char *id, size_t len);
extern void idset_remove(IdSet *set, const char *id, size_t len);
extern bool idset_has(const IdSet *set, const char *id, size_t len);
extern long idset_size(const IdSet *set);

/* All of them, in no order; the array is palloc'd, the ids are the set's. */
extern const char **idset_ids(const IdSet *set);

#endif							/* ACCESSREQ_IDSET_H */
