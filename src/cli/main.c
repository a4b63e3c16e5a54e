#include <sluice/sluice.h>

#include <stdio.h>

int main(void)
{
    printf("sluice %s\n", sl_version());
    return 0;
}
