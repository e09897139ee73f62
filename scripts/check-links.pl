#!/usr/bin/env perl
# Fails if a relative link, an image or an anchor in a Markdown file leads nowhere, or another file names a page of docs/ that is not there.
# `--self-test` first shows on pages of its own that each kind of broken link is found, and that good ones are not.
use strict;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);

# The text of a page without code, in which brackets mean nothing.
sub prose {
    my ($text) = @_;
    $text =~ s/^(\s*)(```+|~~~+).*?^\s*\2[^\S\n]*$//gms;
    return $text;
}

# The anchors that GitHub gives to the headings of a page, and those that the page sets itself.
sub anchors {
    my ($text) = @_;
    my (%anchors, %seen);
    for my $heading (prose($text) =~ /^#{1,6}\s+(.+?)\s*#*$/gm) {
        $heading =~ s/\[([^\]]*)\]\([^)]*\)/$1/g;
        $heading =~ s/<[^>]*>//g;
        my $anchor = lc $heading;
        $anchor =~ s/[^\p{L}\p{N}\p{M}_\- ]//g;
        $anchor =~ s/ /-/g;
        my $again = $seen{$anchor}++;
        $anchors{ $again ? "$anchor-$again" : $anchor } = 1;
    }
    $anchors{$1} = 1 while $text =~ /\b(?:id|name)="([^"]+)"/g;
    return \%anchors;
}

my %pages;
sub page {
    my ($path) = @_;
    return $pages{$path} //= do {
        open my $file, '<', $path or die "$path: $!\n";
        local $/;
        my $text = <$file>;
        { text => $text, anchors => anchors($text) };
    };
}

# What is wrong with the links of a page, one text each.
sub broken {
    my ($path, $root) = @_;
    my $text = prose(page($path)->{text});
    $text =~ s/`[^`\n]+`/code/g;
    my @targets = $text =~ /\]\(\s*<?([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+"[^"]*")?\s*\)/g;
    push @targets, $text =~ /^\s*\[[^\]]+\]:\s*(\S+)/gm;
    push @targets, $text =~ /<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)="([^"]*)"/g;
    my @wrong;
    for my $target (@targets) {
        next if $target =~ /^(?:[a-z][a-z0-9+.-]*:|\/\/)/i;
        my ($file, $anchor) = $target =~ /^([^#]*)(?:#(.*))?$/;
        $file =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
        my $full = $file eq '' ? $path : $file =~ /^\// ? "$root$file" : dirname($path) . "/$file";
        if (!-e $full) {
            push @wrong, "$target: there is no such file";
        } elsif (index(abs_path($full), $root) != 0) {
            push @wrong, "$target: leads out of the repository";
        } elsif (defined $anchor && $full =~ /\.md$/ && !page($full)->{anchors}{$anchor}) {
            push @wrong, "$target: there is no such heading";
        }
    }
    return @wrong;
}

# The pages of docs/ that a file of another kind names, and that are not there.
sub missing {
    my ($path, $root) = @_;
    my @wrong;
    for my $name (page($path)->{text} =~ m{(?<![\w/.-])(?:https://github\.com/penstock/penstock/blob/main/)?(docs/[\w/-]+\.(?:md|json)(?:#[\w-]+)?)}g) {
        my ($file, $anchor) = split /#/, $name;
        if (!-e "$root/$file") {
            push @wrong, "$name: there is no such page";
        } elsif (defined $anchor && !page("$root/$file")->{anchors}{$anchor}) {
            push @wrong, "$name: there is no such heading";
        }
    }
    return @wrong;
}

sub self_test {
    my $root = abs_path(tempdir(CLEANUP => 1));
    mkdir "$root/docs" or die $!;
    my $write = sub { open my $file, '>', "$root/$_[0]" or die $!; print $file $_[1]; close $file };
    $write->('docs/b.md', "# The `b` page: what, why?\n\n## Twice\n\n## Twice\n\n```\n# not a heading\n```\n\n<a id=\"own\"></a>\n");
    $write->('docs/c.png', '');
    my @cases = (
        ['[b](docs/b.md)', 0], ['[b](docs/b.md#the-b-page-what-why)', 0], ['[b](docs/b.md#twice-1)', 0], ['[b](docs/b.md#own)', 0],
        ['![c](docs/c.png)', 0], ['<img src="docs/c.png">', 0], ['[x](https://example.com/nothing)', 0], ['[x](mailto:a@b.c)', 0],
        ['[here](#here)', 0], ["```\n[x](nothing.md)\n```", 0], ['`[x](nothing.md)`', 0], ['[x](/docs/b.md)', 0], ['[x](docs)', 0],
        ['[b](docs/d.md)', 1], ['[b](docs/b.md#thrice)', 1], ['[b](docs/b.md#twice-2)', 1], ['[b](docs/b.md#not-a-heading)', 1],
        ['![c](docs/d.png)', 1], ['<img alt="" src="docs/d.png">', 1], ['<source media="(x)" srcset="docs/d.png">', 1], ['[there](#there)', 1],
        ["[b][b]\n\n[b]: docs/d.md", 1], ['[x](../outside)', 1], ['[a](docs/b.md) and [b](docs/d.md)', 1], ['[a [b]](docs/d.md)', 1],
    );
    for my $case (@cases) {
        my ($text, $expected) = @$case;
        $write->('a.md', "# Here\n\n$text\n");
        delete $pages{"$root/a.md"};
        my @found = broken("$root/a.md", $root);
        die "links: the self-test FAILED: '$text' has ${\scalar @found} broken links, not $expected: @found\n" if @found != $expected;
    }
    for my $case (['see docs/b.md', 0], ['docs/b.md#own', 0], ['other/docs/d.md', 0], ['see docs/d.md.', 1], ['docs/b.md#thrice', 1],
        ['https://github.com/penstock/penstock/blob/main/docs/d.md', 1]) {
        my ($text, $expected) = @$case;
        $write->('a.rs', "// $text\n");
        delete $pages{"$root/a.rs"};
        my @found = missing("$root/a.rs", $root);
        die "links: the self-test FAILED: '$text' names ${\scalar @found} missing pages, not $expected: @found\n" if @found != $expected;
    }
}

self_test() if grep { $_ eq '--self-test' } @ARGV;
my $root = abs_path(dirname(__FILE__) . '/..');
chdir $root or die $!;
my @names = grep { -e } split /\n/, `git ls-files --cached --others --exclude-standard -- '*.md'`;
@names > 20 or die "links: found ${\scalar @names} pages only\n";
my @wrong = map { my $name = $_; map { "$name: $_" } broken("$root/$name", $root) } @names;
# This file has broken ones on purpose.
my @others = grep { -T && !/\.md$|scripts\/check-links/ } split /\n/, `git grep -lE 'docs/[a-zA-Z]' -- .`;
push @wrong, map { my $name = $_; map { "$name: $_" } missing("$root/$name", $root) } @others;
if (@wrong) {
    print STDERR "links: FAILED: $_\n" for @wrong;
    exit 1;
}
printf "links: those of %d pages and %d other files lead somewhere\n", scalar @names, scalar @others;
