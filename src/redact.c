/*-------------------------------------------------------------------------
 *
 * redact.c
 *	  Whether words of others repeat a secret of ours.
 *
 * Gateways show what they refuse, and in their own spelling.  A text is
 * compared as it stands and after each of a few rounds of undoing the usual
 * escapes, all of them at once: what hides a part too much does no harm.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "redact.h"

/* As much of a secret as must not appear. */
#define PART 8

/* Escapes within escapes: JSON in a percent-encoded HTML page is three. */
#define ROUNDS 4

static const struct
{
	const char *name;
	char		c;
}			references[] =
{
	{"amp;", '&'}, {"lt;", '<'}, {"gt;", '>'}, {"quot;", '"'}, {"apos;", '\''},
	{"nbsp;", ' '}, {"plus;", '+'}, {"equals;", '='}, {"sol;", '/'}, {"lowbar;", '_'},
	{"hyphen;", '-'}, {"period;", '.'}, {"percnt;", '%'}, {"num;", '#'}
};

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* "#65;", "#x41;" or "amp;" at p: its character, and in *end what follows it. */
static bool
read_reference(const char *p, const char **end, char *c)
{
	if (*p == '#')
	{
		bool		hex = p[1] == 'x' || p[1] == 'X';
		char	   *after;
		unsigned long code = strtoul(p + (hex ? 2 : 1), &after, hex ? 16 : 10);

		if (code == 0 || code > 0x7f || *after != ';')
			return false;
		*c = (char) code;
		*end = after + 1;
		return true;
	}
	for (int i = 0; i < lengthof(references); i++)
	{
		size_t		len = strlen(references[i].name);

		if (strncmp(p, references[i].name, len) == 0)
		{
			*c = references[i].c;
			*end = p + len;
			return true;
		}
	}
	return false;
}

/* "u0041", "/" or another character after a backslash. */
static void
read_backslash(const char *p, const char **end, char *c)
{
	*c = *p;
	*end = p + 1;
	if (*p == 'u' && p[1] == '0' && p[2] == '0' &&
		hex_value(p[3]) >= 0 && hex_value(p[4]) >= 0)
	{
		*c = (char) (hex_value(p[3]) << 4 | hex_value(p[4]));
		*end = p + 5;
	}
}

/* Undo one round of escapes in place; false where there was none. */
static bool
unescape(char *text)
{
	bool		any = false;
	char	   *to = text;
	const char *p = text;

	while (*p)
	{
		const char *end = p + 1;
		char		c = *p;

		if (c == '%' && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0)
		{
			c = (char) (hex_value(p[1]) << 4 | hex_value(p[2]));
			end = p + 3;
		}
		else if (c == '\\' && p[1] != '\0')
			read_backslash(p + 1, &end, &c);
		else if (c == '&')
			(void) read_reference(p + 1, &end, &c);
		any = any || end != p + 1;
		/* a NUL would end the text before what comes after it */
		*to++ = c != '\0' ? c : ' ';
		p = end;
	}
	*to = '\0';
	return any;
}

static bool
holds_part(const char *text, const char *secret)
{
	size_t		len = strlen(secret);
	size_t		part = Min(len, PART);
	char		piece[PART + 1];

	for (size_t i = 0; i + part <= len; i++)
	{
		strlcpy(piece, secret + i, part + 1);
		if (strstr(text, piece) != NULL)
		{
			explicit_bzero(piece, sizeof(piece));
			return true;
		}
	}
	explicit_bzero(piece, sizeof(piece));
	return false;
}

bool
redact_repeats(const char *text, const char *secret)
{
	size_t		len;
	char	   *copy;
	bool		found;

	if (text == NULL || secret == NULL || secret[0] == '\0')
		return false;
	len = strlen(text);
	copy = pstrdup(text);
	found = holds_part(copy, secret);
	for (int i = 0; !found && i < ROUNDS && unescape(copy); i++)
		found = holds_part(copy, secret);
	/* it has become shorter with each round */
	explicit_bzero(copy, len);
	pfree(copy);
	return found;
}
