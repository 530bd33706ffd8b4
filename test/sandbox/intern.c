/*
 * intern.c
 *
 * A number for each text that occurs in many rows (identities, names of
 * things), so that a million rows compare numbers and share the bytes.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

static char **texts;			/* by number; 0 is the empty one */
static uint32_t ntexts;
static uint32_t *slots;			/* open addressing, 0 = free */
static uint32_t nslots;

static uint32_t
find_slot(const char *s)
{
	uint32_t	i = (uint32_t) hash_bytes(s, strlen(s), 7) & (nslots - 1);

	while (slots[i] && strcmp(texts[slots[i]], s) != 0)
		i = (i + 1) & (nslots - 1);
	return i;
}

static void
grow(void)
{
	nslots = nslots ? nslots * 2 : 4096;
	free(slots);
	slots = xmalloc(nslots * sizeof(uint32_t));
	memset(slots, 0, nslots * sizeof(uint32_t));
	texts = xrealloc(texts, nslots * sizeof(char *));
	if (ntexts == 0)
		texts[ntexts++] = xstrdup("");
	for (uint32_t i = 1; i < ntexts; i++)
		slots[find_slot(texts[i])] = i;
}

uint32_t
intern_find(const char *s)
{
	return s == NULL || *s == '\0' || nslots == 0 ? 0 : slots[find_slot(s)];
}

uint32_t
intern(const char *s)
{
	uint32_t	slot;

	if (s == NULL || *s == '\0')
		return 0;
	if (ntexts * 2 >= nslots)
		grow();
	slot = find_slot(s);
	if (slots[slot] == 0)
	{
		texts[ntexts] = xstrdup(s);
		slots[slot] = ntexts++;
	}
	return slots[slot];
}

const char *
interned(uint32_t n)
{
	return n < ntexts ? texts[n] : "";
}
