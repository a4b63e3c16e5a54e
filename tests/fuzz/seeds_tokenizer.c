/* Writes the seeds of fuzz_tokenizer into a folder: seeds_tokenizer FOLDER */
#include <stdio.h>
#include <string.h>

static const char *const texts[] = {
    "the theatre, the ababab 1111 !!!! don't we'LL",
    "<|a|><|ab|><s>\n\n\n\n<b>> <",
    "    indented\r\n\r\n\ttabs  \xc2\xa0 \xe3\x80\x80 end   ",
    "\xf0\x9f\xa6\x99\xf0\x9f\x9a\x80 caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xd8\xa7\xd9\x84 e\xcc\x81 \xe2\x96\x81",
    "\xff\xfe\x80\xc3\xc3\xc3 \xe6\x97 \xed\xa0\x80 \xf4\x90\x80\x80 a\xf0",
    "HTTPServer 12345678 x=y+z; <sentinel:1> IMGIMGAZ",
};

int main(int argc, char **argv)
{
    for (int which = 0; argc == 2 && which < 19; which++)
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%d-%zu", argv[1], which, i);
            FILE *file = fopen(path, "wb");
            if (!file)
                return 1;
            fputc(which, file);
            fputc((int)(i * 41 + (size_t)which) & 255, file);
            fwrite(texts[i], 1, strlen(texts[i]), file);
            if (fclose(file) != 0)
                return 1;
        }
    return argc != 2;
}
