/*-------------------------------------------------------------------------
 *
 * person.c
 *	  Which names of the tenant's are names.
 *
 * Where the tenant could not look a name up, it is empty, or holds the text of
 * the failure; its form is nowhere documented.  So what is refused are words
 * that stand for no name, alone, and phrases that no person is called by.
 * Groups and machines are called what their owners like: there no phrase is
 * refused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "person.h"

#define PERSON_TYPE "IDENTITY"

/* A space that does not break, in UTF-8. */
#define NO_BREAK_SPACE "\302\240"

/* What stands for no name, as programs write it: there are people named Null. */
static const char *const no_names[] = {"null", "(null)", "undefined", "[object Object]"};

/* What says so in words, whatever its case. */
static const char *const nobodies[] = {
	"unknown", "n/a", "unknown user", "unknown identity", "unknown owner"
};

/* What a failed lookup says, whatever its case: phrases begin where a word does. */
static const char *const failures[] = {
	"not found", "no identity found", "no such identity", "no such user", "does not exist",
	"doesn't exist", "could not ", "couldn't ", "cannot be ", "can't be ", "unable to ",
	"failed to ", "lookup failed", "failed lookup"
};

/* What a message begins with, or the class of an exception ends with. */
static const char *const labels[] = {"error:", "exception:"};

static bool
is_space(const char *c, int *len)
{
	*len = strncmp(c, NO_BREAK_SPACE, strlen(NO_BREAK_SPACE)) == 0 ? strlen(NO_BREAK_SPACE) : 1;
	return *len > 1 || strchr(" \t\r\n\f\v", *c) != NULL;
}

/* Cut what is blank from both ends; the length that is left. */
static size_t
trim(const char **text)
{
	const char *end;
	int			len;

	while (**text != '\0' && is_space(*text, &len))
		*text += len;
	end = *text;
	for (const char *c = *text; *c != '\0'; c += len)
	{
		if (!is_space(c, &len))
			end = c + len;
	}
	return end - *text;
}

static bool
is_one_of(const char *text, size_t len, const char *const *words, int nwords, bool any_case)
{
	for (int i = 0; i < nwords; i++)
	{
		if (strlen(words[i]) == len &&
			(any_case ? pg_strncasecmp(words[i], text, len) : strncmp(words[i], text, len)) == 0)
			return true;
	}
	return false;
}

static bool
begins_failure(const char *text)
{
	for (int i = 0; i < (int) lengthof(failures); i++)
	{
		if (pg_tolower((unsigned char) *text) == failures[i][0] &&
			pg_strncasecmp(text, failures[i], strlen(failures[i])) == 0)
			return true;
	}
	return false;
}

static bool
ends_label(const char *text, const char *colon)
{
	for (int i = 0; i < (int) lengthof(labels); i++)
	{
		int			n = strlen(labels[i]);

		if (colon - text >= n - 1 && pg_strncasecmp(colon - (n - 1), labels[i], n) == 0)
			return true;
	}
	return false;
}

static bool
tells_failure(const char *text, size_t len)
{
	for (const char *c = text; c < text + len; c++)
	{
		bool		at_word = c == text || !isalpha((unsigned char) c[-1]);

		if ((at_word && begins_failure(c)) || (*c == ':' && ends_label(text, c)))
			return true;
	}
	return false;
}

const char *
person_name(const ItemRef *ref)
{
	const char *text = ref->name;
	size_t		len;

	if (text == NULL || (len = trim(&text)) == 0)
		return NULL;
	if (ref->id != NULL && strcmp(ref->name, ref->id) == 0)
		return NULL;
	if (is_one_of(text, len, no_names, lengthof(no_names), false))
		return NULL;
	if (ref->type != NULL && strcmp(ref->type, PERSON_TYPE) != 0)
		return ref->name;
	if (is_one_of(text, len, nobodies, lengthof(nobodies), true) || tells_failure(text, len))
		return NULL;
	return ref->name;
}

void
person_lend(ItemRef *to, const ItemRef *from)
{
	if (to->name == NULL && to->id != NULL && from->id != NULL && strcmp(to->id, from->id) == 0)
		to->name = from->name;
}
