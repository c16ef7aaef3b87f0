/* Files of the source tree inside the program: the migrations and the API document. */

#define EMBED(symbol, file)                                                                                  \
	__asm__(".section .rodata\n"                                                                         \
		".global " #symbol "\n.balign 16\n" #symbol ":\n.incbin \"" file "\"\n"                      \
		".global " #symbol "_end\n" #symbol "_end:\n.byte 0\n.previous\n");

EMBED(schema_001, SCHEMA_DIR "/001-base.sql")
EMBED(schema_002, SCHEMA_DIR "/002-devices.sql")
EMBED(schema_003, SCHEMA_DIR "/003-links.sql")
EMBED(schema_004, SCHEMA_DIR "/004-observed.sql")
EMBED(schema_005, SCHEMA_DIR "/005-ranges.sql")
EMBED(openapi_json, OPENAPI_JSON)
